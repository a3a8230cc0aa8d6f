// OutputFile where there are no unnamed files, in a folder that others write to: what they put in
// the place of its hidden file is neither written to nor given the name. Argument: an empty folder.
// Prints what is wrong, and ends with 1.
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include "image/output_file.h"

// The hidden file's name is known then.
extern "C" ssize_t getrandom(void*, size_t, unsigned) { return -1; }

using namespace dormouse;
using image::OutputFile;

namespace {

std::string dir;
bool good = true;

void check(bool holds, const char* what, bool direct) {
  if (!holds) std::printf("%s (direct %d)\n", what, direct);
  good = good && holds;
}

void put(const std::string& name, const char* text) { std::ofstream(dir + name) << text; }
std::string get(const std::string& name) {
  std::ifstream in(dir + name);
  return {std::istreambuf_iterator<char>(in), {}};
}

alignas(4096) uint8_t page[4096];

bool write_page(OutputFile* file, Fault* fault) {
  return file->write_at(file->reserve(sizeof page), page, sizeof page, fault) &&
         file->publish(5, fault);
}

void squatted(bool direct) {
  put("/.image.0.partial", "theirs");
  Fault fault;
  check(!OutputFile::create({dir + "/image", direct, false, false}, &fault), "took another's file",
        direct);
  check(get("/.image.0.partial") == "theirs", "wrote to another's file", direct);
  unlink((dir + "/.image.0.partial").c_str());
}

void exchanged(bool direct) {
  Fault fault;
  const auto file = OutputFile::create({dir + "/image", direct, false, false}, &fault);
  check(file != nullptr, "made no file", direct);
  if (!file) return;
  rename((dir + "/.image.0.partial").c_str(), (dir + "/away").c_str());
  put("/.image.0.partial", "theirs");
  check(write_page(file.get(), &fault), fault.text.c_str(), direct);
  check(get("/image") == "ours.", "named another's file", direct);
  check(get("/.image.0.partial") == "theirs", "took another's file away", direct);
  for (const char* name : {"/image", "/away", "/.image.0.partial"}) unlink((dir + name).c_str());
}

void removed(bool direct) {
  Fault fault;
  const auto file = OutputFile::create({dir + "/image", direct, false, false}, &fault);
  check(file != nullptr, "made no file", direct);
  if (!file) return;
  unlink((dir + "/.image.0.partial").c_str());
  check(!write_page(file.get(), &fault), "named a file that is gone", direct);
  check(access((dir + "/image").c_str(), F_OK) != 0, "something has the name", direct);
}

void undisturbed(bool direct) {
  Fault fault;
  auto file = OutputFile::create({dir + "/image", direct, false, false}, &fault);
  check(file && write_page(file.get(), &fault), "made no image", direct);
  check(get("/image") == "ours.", "the image holds something else", direct);
  struct stat found;
  check(stat((dir + "/image").c_str(), &found) == 0 && found.st_nlink == 1, "two names", direct);
  unlink((dir + "/image").c_str());
}

}  // namespace

int main(int, char** argv) {
  dir = argv[1];
  std::memcpy(page, "ours.", 5);
  for (const bool direct : {false, true}) {
    squatted(direct);
    exchanged(direct);
    removed(direct);
    undisturbed(direct);
  }
  return good ? 0 : 1;
}
