// The devices of a domain: when their backends come and go.
#include <string>
#include <utility>

#include "host/embedded/block_frontend.h"
#include "host/embedded/domain.h"
#include "host/embedded/network_frontend.h"

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

bool Domain::add_network(NetworkOptions options, Fault* fault) {
  if (networks.size() == kMaxNetworks)
    return fault->raise("CONFIG_INVALID",
                        "a domain has " + std::to_string(kMaxNetworks) + " networks at most");
  networks.push_back(std::make_unique<NetworkDevice>(*this, options));
  return true;
}

std::vector<Backend*> Domain::backends() const {
  std::vector<Backend*> all;
  for (const auto& disk : disks) all.push_back(disk.get());
  for (const auto& network : networks) all.push_back(network.get());
  return all;
}

bool Domain::open_disks(Fault* fault) {
  for (const auto& disk : disks)
    if (!disk->attached() && !disk->open(fault)) return false;
  return true;
}

bool Domain::detach_devices() {
  bool all = true;
  for (Backend* backend : backends()) {
    if (backend->attached()) backend->ask_to_close();
    if (backend->attached())
      all = false;
    else
      backend->end();
  }
  return all;
}

bool Domain::attach_devices(Fault* fault) {
  if (!devices_connected) return true;
  for (uint32_t i = 0; i < guest->disks && i < disks.size(); i++) {
    BlockDevice& disk = *disks[i];
    const FrontendSeen seen = BlockFrontend::look(*this, i);
    if (!seen.serves()) continue;
    disk.keep_open();
    if (disk.attached()) continue;
    if (!disk.open(fault)) return false;
    disk.attach(seen.rings[0]);
  }
  attach_networks();
  return true;
}

void Domain::attach_networks() {
  for (uint32_t i = 0; i < guest->networks && i < networks.size(); i++) {
    const FrontendSeen seen = NetworkFrontend::look(*this, i);
    if (!seen.serves()) continue;
    networks[i]->keep_open();
    if (!networks[i]->attached()) networks[i]->attach(seen.rings[0], seen.rings[1]);
  }
}

bool Domain::has_devices_of(const GuestText& text, Fault* fault) const {
  const auto missing = [fault](uint64_t has, size_t named, const char* what) {
    return fault->raise("CONFIG_INVALID", "the guest has " + std::to_string(has) + what +
                                              ", its configuration names " + std::to_string(named));
  };
  if (text.disks > disks.size()) return missing(text.disks, disks.size(), " disks");
  if (text.networks > networks.size()) return missing(text.networks, networks.size(), " networks");
  return true;
}

bool Domain::any_frontend_serves() const {
  for (uint32_t i = 0; i < guest->disks; i++)
    if (BlockFrontend::look(*this, i).serves()) return true;
  for (uint32_t i = 0; i < guest->networks; i++)
    if (NetworkFrontend::look(*this, i).serves()) return true;
  return false;
}

bool Domain::connect_devices(Fault* fault) {
  if (devices_connected || !guest) return true;
  if (!has_devices_of(*guest, fault) || !open_disks(fault)) return false;
  for (uint32_t i = 0; i < guest->disks; i++) {
    if (BlockFrontend(*vcpus[0], *guest, i).connect())
      disks[i]->attach(BlockFrontend::look(*this, i).rings[0]);
    else
      disks[i]->end();
  }
  for (uint32_t i = 0; i < guest->networks; i++) NetworkFrontend(*vcpus[0], *guest, i).connect();
  attach_networks();
  devices_connected = true;
  return true;
}

}  // namespace dormouse::embedded
