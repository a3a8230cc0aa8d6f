// What JavaScript holds by number, and the number of each kind: a handle of one kind is none of
// another. One list for both addons, whose handles meet in the same TypeScript.
#pragma once
#include <cstdint>

namespace dormouse::host {
class DomainMemory;
}
namespace dormouse::image {
class Writer;
class Reader;
class BasePages;
}  // namespace dormouse::image
namespace dormouse::step {
class DigestTable;
class ContentTracker;
class LivePass;
class Rewind;
class ImageDiff;
class PageFile;
}  // namespace dormouse::step
namespace dormouse::embedded {
class MachineMap;
}
namespace dormouse::xen {
class XenMemory;
class DomainBuilder;
class DomainRewriter;
}  // namespace dormouse::xen

namespace dormouse::binding {

class SequentialOutput;
struct HostedMachine;

struct KindInfo {
  uint32_t number;
  const char* name;
};

template <typename T>
constexpr KindInfo kKind = {};  // number 0: not to be held
template <>
constexpr KindInfo kKind<host::DomainMemory> = {1, "memory"};
template <>
constexpr KindInfo kKind<image::Writer> = {2, "writer"};
template <>
constexpr KindInfo kKind<image::Reader> = {3, "reader"};
template <>
constexpr KindInfo kKind<step::DigestTable> = {4, "digest"};
template <>
constexpr KindInfo kKind<step::ContentTracker> = {5, "tracker"};
template <>
constexpr KindInfo kKind<step::LivePass> = {6, "live pass"};
template <>
constexpr KindInfo kKind<SequentialOutput> = {7, "output"};
template <>
constexpr KindInfo kKind<embedded::MachineMap> = {8, "mapped machine"};
template <>
constexpr KindInfo kKind<HostedMachine> = {9, "machine"};
template <>
constexpr KindInfo kKind<xen::XenMemory> = {10, "memory of the xen host"};
template <>
constexpr KindInfo kKind<xen::DomainBuilder> = {11, "builder of the xen host"};
template <>
constexpr KindInfo kKind<step::Rewind> = {12, "rewind"};
template <>
constexpr KindInfo kKind<xen::DomainRewriter> = {13, "rewriter of the xen host"};
template <>
constexpr KindInfo kKind<step::ImageDiff> = {14, "diff"};
template <>
constexpr KindInfo kKind<step::PageFile> = {15, "page file"};
template <>
constexpr KindInfo kKind<image::BasePages> = {16, "base pages"};

}  // namespace dormouse::binding
