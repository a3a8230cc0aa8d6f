// The guest's load and its self-check, one static program. It keeps rewriting memory, a disk and a stream of datagrams whose
// contents it can foretell, and says so once a second on its console; what it did not expect is a line that starts with BAD.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

// What the kernel's header takes from Xen's.
typedef uint32_t grant_ref_t;
typedef uint16_t domid_t;
#include <xen/gntdev.h>

typedef uint64_t u64;
enum { kPage = 4096, kWords = kPage / 8, kDiskBlock = 65536, kEchoPort = 7007, kDatagramWords = 64, kWindow = 1024 };

static char cmdline[4096];
static u64 pages_written, rounds, memory_sum, bad_count;
static u64 disk_ops, disk_bad, disk_errors, disk_slowest_us;
static u64 net_sent, net_received, net_lost, net_bad;
static int have_disk, have_net;
// How often each processor has slept and woken again by its own timer.
enum { kNappers = 8 };
static u64 naps[kNappers];
static long nappers;
// The tick with which something of it broke, on purpose.
static u64 broken_at;
static u64 gap_mono_us, gap_boot_us, gap_tsc_cycles, gap_at_us;
static double tsc_per_us;

static void say(const char* format, ...) {
  char line[720];
  va_list args;
  va_start(args, format);
  int length = vsnprintf(line, sizeof line, format, args);
  va_end(args);
  // One write a line: the console's other users must not cut it in two.
  if (write(1, line, (size_t)length) < 0) return;
}

static const char* option(const char* name) {
  char key[64];
  snprintf(key, sizeof key, "lab.%s=", name);
  const char* at = strstr(cmdline, key);
  return at ? at + strlen(key) : NULL;
}

static long number(const char* name, long otherwise) {
  const char* text = option(name);
  return text ? strtol(text, NULL, 10) : otherwise;
}

static u64 clock_us(clockid_t which) {
  struct timespec now;
  clock_gettime(which, &now);
  return (u64)now.tv_sec * 1000000u + (u64)now.tv_nsec / 1000u;
}

static void sleep_us(long us) {
  struct timespec span = {us / 1000000, us % 1000000 * 1000};
  nanosleep(&span, NULL);
}

static void bad(const char* what, u64 where, u64 found, u64 expected) {
  u64 count = __atomic_add_fetch(&bad_count, 1, __ATOMIC_RELAXED);
  if (count <= 20)
    say("BAD %s %lu found %016lx expected %016lx\n", what, where, found, expected);
}

// A block is: what it is and where, its generation, pseudo-random words, a checksum over all before it.
static void fill(u64* block, size_t words, u64 where, u64 generation) {
  u64 x = (where << 32 ^ generation) * 0x9e3779b97f4a7c15u | 1, sum = 0;
  block[0] = where;
  block[1] = generation;
  for (size_t i = 2; i < words - 1; ++i) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    block[i] = x;
  }
  for (size_t i = 0; i < words - 1; ++i) sum = (sum ^ block[i]) * 0x100000001b3u;
  block[words - 1] = sum;
}

static int check(const u64* block, size_t words, const char* what, u64 where, u64 generation) {
  u64 sum = 0;
  for (size_t i = 0; i < words - 1; ++i) sum = (sum ^ block[i]) * 0x100000001b3u;
  if (sum != block[words - 1]) return bad(what, where, sum, block[words - 1]), 0;
  if (block[0] != where) return bad(what, where, block[0], where), 0;
  // Whole but of another generation: a stale copy came back.
  if (block[1] != generation) return bad(what, where, block[1], generation), 0;
  return 1;
}

static void raise_to(u64* most, u64 value) {
  if (value > __atomic_load_n(most, __ATOMIC_RELAXED)) __atomic_store_n(most, value, __ATOMIC_RELAXED);
}

static void* watch_clocks(void* unused) {
  long period = number("clock_us", 20000);
  struct sched_param priority = {.sched_priority = 10};
  sched_setscheduler(0, SCHED_FIFO, &priority);
  u64 mono = clock_us(CLOCK_MONOTONIC), boot = clock_us(CLOCK_BOOTTIME), tsc = __rdtsc();
  for (;;) {
    sleep_us(period);
    u64 mono_now = clock_us(CLOCK_MONOTONIC), boot_now = clock_us(CLOCK_BOOTTIME), tsc_now = __rdtsc();
    if (boot_now - boot > __atomic_load_n(&gap_boot_us, __ATOMIC_RELAXED)) gap_at_us = boot;
    raise_to(&gap_mono_us, mono_now - mono);
    raise_to(&gap_boot_us, boot_now - boot);
    // Signed: a restore may set the counter back.
    if ((int64_t)(tsc_now - tsc) > 0) raise_to(&gap_tsc_cycles, tsc_now - tsc);
    mono = mono_now, boot = boot_now, tsc = tsc_now;
  }
  return unused;
}

static void* use_memory(void* unused) {
  const u64 count = (u64)number("mem", 32) * 256;
  const long per_slot = number("rate", 4) * 256 / 20 > 0 ? number("rate", 4) * 256 / 20 : 1;
  u64* memory = mmap(NULL, count * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  u64* generations = calloc(count, sizeof *generations);
  if (memory == MAP_FAILED || !generations) return bad("allocation", count, 0, 0), unused;
  u64 sum = 0, seen = 0;
  for (u64 page = 0; page < count; ++page) {
    fill(memory + page * kWords, kWords, page, 0);
    sum ^= memory[page * kWords + kWords - 1];
  }
  for (u64 step = 0;; ++step) {
    // A stride of 1021 pages visits every page (the count is a multiple of 256) in no order of theirs.
    u64 page = step % count * 1021 % count, *block = memory + page * kWords;
    check(block, kWords, "page", page, generations[page]);
    sum ^= block[kWords - 1];
    fill(block, kWords, page, ++generations[page]);
    sum ^= block[kWords - 1];
    seen ^= block[kWords - 1];
    __atomic_store_n(&memory_sum, sum, __ATOMIC_RELAXED);
    __atomic_add_fetch(&pages_written, 1, __ATOMIC_RELAXED);
    if ((step + 1) % count == 0) {
      if (seen != sum) bad("sum", rounds, seen, sum);
      seen = 0;
      __atomic_add_fetch(&rounds, 1, __ATOMIC_RELAXED);
    }
    if ((long)(step % (u64)per_slot) == per_slot - 1) sleep_us(50000);
  }
}

static int disk_block(int disk, int writing, u64* buffer, u64 index) {
  off_t at = (off_t)(index * kDiskBlock);
  u64 start = clock_us(CLOCK_MONOTONIC);
  ssize_t done = writing ? pwrite(disk, buffer, kDiskBlock, at) : pread(disk, buffer, kDiskBlock, at);
  raise_to(&disk_slowest_us, clock_us(CLOCK_MONOTONIC) - start);
  __atomic_add_fetch(&disk_ops, 1, __ATOMIC_RELAXED);
  if (done == kDiskBlock) return 1;
  u64 count = __atomic_add_fetch(&disk_errors, 1, __ATOMIC_RELAXED);
  if (count <= 5) say("BAD disk %s block %lu: %s\n", writing ? "write" : "read", index, strerror(errno));
  return 0;
}

static void* use_disk(void* unused) {
  int disk = open("/dev/xvda", O_RDWR | O_DIRECT | O_DSYNC);
  u64 bytes = 0;
  if (disk < 0 || ioctl(disk, BLKGETSIZE64, &bytes) < 0) return bad("disk open", (u64)errno, 0, 0), unused;
  const u64 count = bytes / kDiskBlock < 128 ? bytes / kDiskBlock : 128;
  u64* generations = calloc(count, sizeof *generations);
  u64* buffer = aligned_alloc(kPage, kDiskBlock);
  if (!generations || !buffer || !count) return bad("disk size", bytes, 0, 0), unused;
  have_disk = 1;
  for (u64 step = 0;; ++step) {
    u64 index = step % count;
    fill(buffer, kDiskBlock / 8, index, generations[index] + 1);
    if (disk_block(disk, 1, buffer, index)) ++generations[index];
    index = step * 7 % count;
    memset(buffer, 0, kDiskBlock);
    if (generations[index] && disk_block(disk, 0, buffer, index) &&
        !check(buffer, kDiskBlock / 8, "disk block", index, generations[index]))
      __atomic_add_fetch(&disk_bad, 1, __ATOMIC_RELAXED);
    sleep_us(50000);
  }
}

static void take_answers(int sock, char* answered) {
  u64 datagram[kDatagramWords];
  for (;;) {
    ssize_t length = recv(sock, datagram, sizeof datagram, MSG_DONTWAIT);
    if (length < 0) return;
    if (length != sizeof datagram || !check(datagram, kDatagramWords, "datagram", 7, datagram[1])) {
      __atomic_add_fetch(&net_bad, 1, __ATOMIC_RELAXED);
      continue;
    }
    answered[datagram[1] % kWindow] = 1;
    __atomic_add_fetch(&net_received, 1, __ATOMIC_RELAXED);
  }
}

static void* use_network(void* unused) {
  char host[64] = "";
  sscanf(option("echo"), "%63[0-9.]", host);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(kEchoPort)};
  inet_pton(AF_INET, host, &to.sin_addr);
  int sock = socket(AF_INET, SOCK_DGRAM, 0);
  if (sock < 0 || connect(sock, (struct sockaddr*)&to, sizeof to) < 0) return bad("socket", (u64)errno, 0, 0), unused;
  have_net = 1;
  static char answered[kWindow];
  u64 datagram[kDatagramWords];
  // The answer has 20 sends, one second of the guest's own time, to come back.
  for (u64 sequence = 0;; ++sequence) {
    answered[sequence % kWindow] = 0;
    fill(datagram, kDatagramWords, 7, sequence);
    if (send(sock, datagram, sizeof datagram, MSG_DONTWAIT) < 0) errno = 0;
    __atomic_add_fetch(&net_sent, 1, __ATOMIC_RELAXED);
    sleep_us(50000);
    take_answers(sock, answered);
    if (sequence >= 20 && !answered[(sequence - 20) % kWindow]) __atomic_add_fetch(&net_lost, 1, __ATOMIC_RELAXED);
  }
}

static void* nap(void* which) {
  const long cpu = (long)which;
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(cpu, &only);
  if (sched_setaffinity(0, sizeof only, &only) != 0) return bad("affinity", (u64)cpu, (u64)errno, 0), which;
  for (;; __atomic_add_fetch(&naps[cpu], 1, __ATOMIC_RELAXED)) sleep_us(300000);
}

// Those of the processor that slept the least often.
static u64 fewest_naps(void) {
  u64 fewest = ~0ul;
  for (long cpu = 0; cpu < nappers; ++cpu)
    if (naps[cpu] < fewest) fewest = naps[cpu];
  return nappers ? fewest : 0;
}

static void calibrate_tsc(void) {
  u64 mono = clock_us(CLOCK_MONOTONIC), tsc = __rdtsc();
  sleep_us(300000);
  tsc_per_us = (double)(__rdtsc() - tsc) / (double)(clock_us(CLOCK_MONOTONIC) - mono);
}

static long memory_kib(void) {
  char text[512] = "";
  int file = open("/proc/meminfo", O_RDONLY);
  if (read(file, text, sizeof text - 1) < 0) text[0] = 0;
  close(file);
  const char* at = strstr(text, "MemTotal:");
  return at ? strtol(at + 9, NULL, 10) : 0;
}

static void tick(u64 count) {
  u64 mono_gap = __atomic_exchange_n(&gap_mono_us, 0, __ATOMIC_RELAXED);
  u64 boot_gap = __atomic_exchange_n(&gap_boot_us, 0, __ATOMIC_RELAXED);
  u64 tsc_gap = __atomic_exchange_n(&gap_tsc_cycles, 0, __ATOMIC_RELAXED);
  say("tick %lu mono_us=%lu boot_us=%lu tsc=%llu gap_mono_us=%lu gap_boot_us=%lu gap_tsc_us=%.0f gap_at_us=%lu "
      "mem_kib=%ld cpus=%ld written=%lu rounds=%lu sum=%016lx bad=%lu "
      "disk=%d disk_ops=%lu disk_bad=%lu disk_err=%lu disk_slow_us=%lu "
      "net=%d net_sent=%lu net_recv=%lu net_lost=%lu net_bad=%lu naps=%lu broken=%lu\n",
      count, clock_us(CLOCK_MONOTONIC), clock_us(CLOCK_BOOTTIME), __rdtsc(), mono_gap, boot_gap,
      (double)tsc_gap / tsc_per_us, gap_at_us, memory_kib(), sysconf(_SC_NPROCESSORS_ONLN), pages_written, rounds,
      memory_sum, bad_count, have_disk, disk_ops, disk_bad, disk_errors,
      __atomic_exchange_n(&disk_slowest_us, 0, __ATOMIC_RELAXED), have_net, net_sent, net_received, net_lost, net_bad, fewest_naps(),
      broken_at);
}

// Maps a page of dom0's, which so gets a frame of dom0's into a page table of this process.
static void map_grant(void) {
  struct ioctl_gntdev_map_grant_ref map = {.count = 1, .refs = {{.domid = 0, .ref = (uint32_t)number("grant", 0)}}};
  int device = open("/dev/xen/gntdev", O_RDWR);
  if (device < 0 || ioctl(device, IOCTL_GNTDEV_MAP_GRANT_REF, &map) != 0) return bad("grant", (u64)errno, 0, 0);
  const volatile u64* page = mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)map.index);
  if (page == MAP_FAILED) return bad("grant", (u64)errno, 1, 0);
  say("granted page holds %016lx\n", *page);
}

static void crash(void) {
  int trigger = open("/proc/sysrq-trigger", O_WRONLY);
  say("crash asked for\n");
  if (write(trigger, "c", 1) < 0) bad("crash", (u64)errno, 0, 0);
}

int main(void) {
  int file = open("/proc/cmdline", O_RDONLY);
  if (read(file, cmdline, sizeof cmdline - 1) < 0) return 1;
  close(file);
  calibrate_tsc();
  pthread_t thread;
  pthread_create(&thread, NULL, watch_clocks, NULL);
  pthread_create(&thread, NULL, use_memory, NULL);
  if (access("/dev/xvda", F_OK) == 0) pthread_create(&thread, NULL, use_disk, NULL);
  if (option("echo")) pthread_create(&thread, NULL, use_network, NULL);
  nappers = sysconf(_SC_NPROCESSORS_ONLN) < kNappers ? sysconf(_SC_NPROCESSORS_ONLN) : kNappers;
  for (long cpu = 0; cpu < nappers; ++cpu) pthread_create(&thread, NULL, nap, (void*)cpu);
  if (option("grant")) map_grant();
  const u64 crash_tick = (u64)number("crash_s", 0), break_tick = (u64)number("break_s", 0);
  for (u64 count = 1;; ++count) {
    sleep_us(1000000);
    if (break_tick && count == break_tick) broken_at = count;
    tick(count);
    if (crash_tick && count == crash_tick) crash();
  }
}
