// talker: each vCPU has a network interface of its own and sends numbered frames, several at a
// time, to the other end of the wire, which sends them back. What comes back must be what was sent:
// all of a frame follows from its number. One that stays away is sent again; one that comes twice,
// late, or from before the domain went back in time is passed over.
//
// Page 0 of its share of the heap holds a slot for each frame that it waits for; from page 16 on it
// writes to memory. A slot is waited for before it is used again, so what a step finds depends on
// the steps before it alone. The last step waits for all, and vCPU 0's closes the interfaces.
#include <time.h>

#include "host/embedded/network_frontend.h"
#include "host/embedded/programs/programs.h"

namespace dormouse::embedded {

namespace {

constexpr uint64_t kFramesAway = 4;
constexpr uint64_t kFirstWritten = 16;
constexpr uint64_t kFrameMagic = 0x6b6c617464726f6dull;
constexpr uint64_t kPatienceNs = 5'000'000;
constexpr uint32_t kNumberAt = 16, kContentAt = 32;  // behind the header, which is padded to 16
constexpr uint8_t kOtherEnd[kMacBytes] = {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff};

struct Slot {
  uint64_t number, back;
};

uint64_t now_ns() {
  timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return uint64_t(at.tv_sec) * 1'000'000'000 + uint64_t(at.tv_nsec);
}

struct Talker {
  Vcpu& cpu;
  const GuestText& text;

  uint64_t heap() const { return text.heap_of(cpu.id); }
  NetworkFrontend front() { return NetworkFrontend(cpu, text, cpu.id); }
  uint64_t magic() const { return kFrameMagic ^ mix(text.seed << 8 ^ cpu.id); }
  uint32_t bytes_of(uint64_t number) const {
    return uint32_t(kContentAt + mix(magic() ^ number) % (kMostFrameBytes - kContentAt));
  }
  const Slot* slots() { return reinterpret_cast<const Slot*>(cpu.load_page(linear(heap()))); }
  Slot* slots_to_write() { return reinterpret_cast<Slot*>(cpu.store_page(linear(heap()))); }

  // A frame as it is sent but for the addresses, which the other end swaps.
  void write(uint64_t number, uint8_t* frame) const {
    std::memset(frame, 0, kNumberAt);
    frame[12] = 0x88;  // an EtherType for experiments (IEEE 802)
    frame[13] = 0xb5;
    const uint64_t head[2] = {magic(), number};
    std::memcpy(frame + kNumberAt, head, sizeof head);
    uint64_t word = 0;
    for (uint32_t at = kContentAt; at < bytes_of(number); at++) {
      if (at % 8 == 0) word = mix(magic() + number * 512 + at / 8);
      frame[at] = uint8_t(word >> at % 8 * 8);
    }
  }

  bool send(uint64_t number) {
    uint8_t frame[kMostFrameBytes];
    write(number, frame);
    NetworkFrontend device = front();
    std::memcpy(frame, kOtherEnd, kMacBytes);
    if (!device.mac(frame + kMacBytes)) return false;
    cpu.timer_ns = now_ns();
    return device.send(frame, bytes_of(number));
  }

  // Whether it is one of this vCPU's; brings the domain down if it is not as it was sent.
  bool check(const uint8_t* frame, uint32_t bytes, uint64_t* number) {
    if (bytes < kContentAt) return cpu.fault("BAD: a frame came back cut, bytes", bytes);
    uint64_t head[2];
    std::memcpy(head, frame + kNumberAt, sizeof head);
    uint8_t sent[kMostFrameBytes];
    write(head[1], sent);
    const bool same =
        head[0] == magic() && bytes == bytes_of(head[1]) &&
        std::memcmp(sent + 2 * kMacBytes, frame + 2 * kMacBytes, bytes - 2 * kMacBytes) == 0;
    *number = head[1];
    return same || cpu.fault("BAD: a frame came back changed, number", head[1]);
  }

  // Takes all that has arrived. False if the guest has come down.
  bool listen() {
    uint8_t frame[kMostFrameBytes];
    uint32_t bytes;
    while (front().receive(frame, &bytes)) {
      uint64_t number = 0;
      if (!check(frame, bytes, &number)) return false;
      Slot* slot = slots_to_write();
      if (!slot) return false;
      for (uint64_t i = 0; i < kFramesAway; i++)
        if (slot[i].number == number) slot[i].back = 1;
    }
    return cpu.domain.shutdown_reason < 0;
  }

  // Waits for the frame of a slot; go_on once it has none.
  Outcome free_slot(uint64_t index) {
    const Slot* seen = slots();
    if (!seen) return Outcome::end;
    if (seen[index].number == 0) return Outcome::go_on;
    if (!listen()) return Outcome::end;
    if (!seen[index].back) {
      if (now_ns() - cpu.timer_ns > kPatienceNs) send(seen[index].number);
      return cpu.domain.shutdown_reason >= 0 ? Outcome::end : Outcome::wait;
    }
    cpu.regs().rbx = mix(cpu.regs().rbx ^ seen[index].number);
    Slot* page = slots_to_write();
    if (!page) return Outcome::end;
    page[index] = {};
    return Outcome::go_on;
  }

  Outcome work() {
    const uint64_t random = draw(cpu, text), number = cpu.regs().r15 + 1;
    const uint64_t index = number % kFramesAway;
    if (cpu.id < text.networks) {
      const Outcome free = free_slot(index);
      if (free != Outcome::go_on) return free;
      Slot* page = slots_to_write();
      if (!page) return Outcome::end;
      page[index] = {number, 0};
      send(number);  // if there is no room it is sent when it is missed
    }
    const uint64_t to = heap() + kFirstWritten + random % (text.heap_share() - kFirstWritten);
    const bool written = cpu.store(linear(to) + (random >> 32 & 511) * 8, cpu.regs().rbx ^ random);
    return written && cpu.domain.shutdown_reason < 0 ? Outcome::go_on : Outcome::end;
  }

  Outcome finish() {
    for (uint64_t index = 0; cpu.id < text.networks && index < kFramesAway; index++) {
      const Outcome free = free_slot(index);
      if (free != Outcome::go_on) return free;
    }
    if (cpu.id != 0) return Outcome::go_on;
    for (const auto& other : cpu.domain.vcpus)
      if (other->id != 0 && other->steps.load(std::memory_order_acquire) < text.steps)
        return Outcome::wait;
    for (uint32_t network = 0; network < text.networks; network++)
      if (!NetworkFrontend(cpu, text, network).close())
        return cpu.domain.shutdown_reason >= 0 ? Outcome::end : Outcome::wait;
    return Outcome::go_on;
  }
};

}  // namespace

Outcome talker_step(Vcpu& vcpu, const GuestText& text) {
  if (text.networks == 0) return Outcome::block;
  Talker talker{vcpu, text};
  return text.steps && vcpu.regs().r15 + 1 == text.steps ? talker.finish() : talker.work();
}

}  // namespace dormouse::embedded
