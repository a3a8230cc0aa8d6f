// An image written once more, whole, whichever files its pages lie in: what counts of it is put
// into a writer as it is.
#pragma once
#include "image/page_map.h"
#include "image/reader.h"
#include "image/writer.h"

namespace dormouse::step {

// Units [first, first + count) of an image, see Reader::blanks(). Chunks are checked.
bool copy_step(image::Reader& reader, image::Writer& writer, uint32_t lane, uint32_t first,
               uint32_t count, Fault* fault);

// Those of pfns [first, first + count) that have no frame, which are in no unit.
bool copy_holes(const image::ReaderMap& map, image::Writer& writer, uint32_t lane, uint64_t first,
                uint64_t count, Fault* fault);

}  // namespace dormouse::step
