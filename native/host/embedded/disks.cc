// The block devices of a domain: when their backends come and go.
#include <string>
#include <utility>

#include "host/embedded/block_frontend.h"
#include "host/embedded/domain.h"

namespace dormouse::embedded {

bool Domain::add_disk(DiskOptions options, Fault* fault) {
  if (disks.size() == kMaxDisks)
    return fault->raise("CONFIG_INVALID",
                        "a domain has " + std::to_string(kMaxDisks) + " disks at most");
  auto disk = std::make_unique<BlockDevice>(*this, std::move(options));
  if (!disk->open(fault)) return false;
  disk->end();  // until it is attached the file is anybody's
  disks.push_back(std::move(disk));
  return true;
}

bool Domain::open_disks(Fault* fault) {
  for (const auto& disk : disks)
    if (!disk->attached() && !disk->open(fault)) return false;
  return true;
}

bool Domain::detach_disks() {
  bool all = true;
  for (const auto& disk : disks) {
    if (disk->attached()) disk->ask_to_close();
    if (disk->attached())
      all = false;
    else
      disk->end();
  }
  return all;
}

bool Domain::attach_disks(Fault* fault) {
  if (!disks_connected) return true;
  for (uint32_t i = 0; i < guest->disks && i < disks.size(); i++) {
    BlockDevice& disk = *disks[i];
    const BlockFrontend::Seen seen = BlockFrontend::look(*this, i);
    if (seen.state != kXenbusConnected && seen.state != kXenbusClosing) continue;
    disk.keep_open();
    if (disk.attached()) continue;
    if (!disk.open(fault)) return false;
    disk.attach(seen.ring_ref);
  }
  return true;
}

bool Domain::has_disks_of(const GuestText& text, Fault* fault) const {
  if (text.disks <= disks.size()) return true;
  return fault->raise("CONFIG_INVALID", "the guest has " + std::to_string(text.disks) +
                                            " disks, its configuration names " +
                                            std::to_string(disks.size()));
}

bool Domain::connect_disks(Fault* fault) {
  if (disks_connected || !guest) return true;
  if (!has_disks_of(*guest, fault) || !open_disks(fault)) return false;
  for (uint32_t i = 0; i < guest->disks; i++) {
    if (BlockFrontend(*vcpus[0], *guest, i).connect())
      disks[i]->attach(BlockFrontend::look(*this, i).ring_ref);
    else
      disks[i]->end();
  }
  disks_connected = true;
  return true;
}

}  // namespace dormouse::embedded
