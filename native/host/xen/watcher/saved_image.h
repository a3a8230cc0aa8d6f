// The image that decides about a domain: once it has its name the domain must not run on.
#pragma once
#include <string>

namespace dormouse::xen {

struct SavedImage {
  bool then_pause = false;  // else the domain is to end
  std::string image_id;     // 32 hex digits
  std::string path;         // empty where no image decides
};

enum class Found { kThere, kAbsent, kUnknown };

// "destroy|pause IMAGE-ID PATH", with %25 and %0A for percent and newline. False if it is not that.
bool read_saved(const char* text, SavedImage* out);

// kThere: with its name on disk, whatever became of the process that wrote it. kAbsent: also where
// something else has the name, or no file can have it. kUnknown: standard error says why it cannot
// be told.
Found find_image(const SavedImage& image);

}  // namespace dormouse::xen
