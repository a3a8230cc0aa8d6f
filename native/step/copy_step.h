// An image written once more, whole, whichever files its pages lie in: what counts of it is put
// into a writer as it is.
#pragma once
#include "image/image_reader.h"
#include "image/image_writer.h"
#include "image/page_map.h"

namespace dormouse::step {

// Units [first, first + count) of an image, see Reader::blanks(). Chunks are checked; with
// `as_stored` those of which most counts are not coded anew.
bool copy_step(image::ImageReader& reader, image::ImageWriter& writer, uint32_t lane,
               uint32_t first, uint32_t count, bool as_stored, Fault* fault);

// Those of pfns [first, first + count) that have no frame, which are in no unit.
bool copy_holes(const image::ReaderMap& map, image::Writer& writer, uint32_t lane, uint64_t first,
                uint64_t count, Fault* fault);

}  // namespace dormouse::step
