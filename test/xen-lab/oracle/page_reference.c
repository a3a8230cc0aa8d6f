/* Writes down the memory of a domain that stands still, read by Xen's own library: for each pfn with a frame eight bytes
 * (pfn, page type in the top nibble, 15 for a page of Xen's own) and the page. Frames in the page tables of a PV domain become pfns; one that is not the
 * domain's gets bit 51. Prints the number of pfns and of pages.
 * usage: page_reference DOMID FILE */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xenguest.h>

/* Exported by libxenctrl; its header is private. */
int xc_get_pfn_type_batch(xc_interface *xch, uint32_t dom, unsigned int num, xen_pfn_t *arr);

#define BATCH 1024
#define NONE (~0ul)
#define FRAME 0x000ffffffffff000ul

static xc_interface *xc;
static xenforeignmemory_handle *memory;
static FILE *out;
static uint64_t nr_pfns, written;
/* Of a PV domain only. */
static struct xc_domain_meminfo pv;
static uint64_t *pfn_of;
static unsigned long max_mfn;

static void die(const char *what) {
  perror(what);
  exit(1);
}

/* Of a PVH domain: types of the pfns from `first_typed` on. */
static xen_pfn_t types[BATCH];
static uint64_t first_typed;

/* A page that can be mapped and has no type of a guest's page is Xen's own: shared info, the grant table. */
static int type_of(uint64_t pfn) {
  return pv.pfn_type ? (pv.pfn_type[pfn] >> 28) & 15 : (types[pfn - first_typed] >> 28) & 15;
}

static void canonical(uint64_t *table, int level) {
  for (int i = 0; i < 512; ++i) {
    if (level == 4 && i >= 256 && i <= 271) table[i] = 0;
    if (!(table[i] & 1)) continue;
    const uint64_t mfn = (table[i] & FRAME) >> 12;
    const uint64_t pfn = mfn <= max_mfn ? pfn_of[mfn] : NONE;
    table[i] = pfn == NONE ? table[i] | 1ul << 51 : (table[i] & ~FRAME) | pfn << 12;
  }
}

static void put(uint64_t pfn, const void *page) {
  static uint64_t copy[512];
  const int type = type_of(pfn), level = type & 7;
  const uint64_t head = pfn | (uint64_t)type << 60;
  memcpy(copy, page, sizeof copy);
  if (level >= 1 && level <= 4) canonical(copy, level);
  if (fwrite(&head, 8, 1, out) != 1 || fwrite(copy, sizeof copy, 1, out) != 1) die("write");
  ++written;
}

static void put_batch(uint32_t domid, const uint64_t *pfns, const xen_pfn_t *frames, size_t n) {
  static int errors[BATCH];
  if (n == 0) return;
  uint8_t *at = xenforeignmemory_map(memory, domid, PROT_READ, n, frames, errors);
  if (!at) return;
  for (size_t i = 0; i < n; ++i) {
    if (errors[i] == 0) put(pfns[i], at + i * 4096);
    else if (pv.p2m_table) die("a frame of the domain cannot be mapped");
  }
  xenforeignmemory_unmap(memory, at, n);
}

/* Of a PVH domain, whose pfn space is mostly empty. A pfn that is not there takes as long as one that is. */
static int is_empty(uint32_t domid, uint64_t first, size_t n, uint64_t shared_info) {
  first_typed = first;
  for (size_t i = 0; i < n; ++i) types[i] = first + i;
  if (xc_get_pfn_type_batch(xc, domid, n, types) != 0) die("page types");
  if (shared_info >= first && shared_info < first + n) return 0;
  for (size_t i = 0; i < n; ++i)
    if ((types[i] & XEN_DOMCTL_PFINFO_LTAB_MASK) != XEN_DOMCTL_PFINFO_XTAB) return 0;
  return 1;
}

static void know_frames(uint32_t domid) {
  if (xc_map_domain_meminfo(xc, domid, &pv) != 0) die("p2m");
  if (xc_maximum_ram_page(xc, &max_mfn) != 0) die("maximum ram page");
  pfn_of = malloc((max_mfn + 1) * sizeof *pfn_of);
  if (!pfn_of) die("memory");
  memset(pfn_of, 0xff, (max_mfn + 1) * sizeof *pfn_of);
  nr_pfns = pv.p2m_size;
  for (uint64_t pfn = 0; pfn < nr_pfns; ++pfn)
    if (pv.p2m_table[pfn] <= max_mfn && type_of(pfn) < 13) pfn_of[pv.p2m_table[pfn]] = pfn;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const uint32_t domid = atoi(argv[1]);
  xc_domaininfo_t info;
  xc = xc_interface_open(0, 0, 0);
  memory = xenforeignmemory_open(0, 0);
  out = fopen(argv[2], "w");
  if (!xc || !memory || !out || xc_domain_getinfolist(xc, domid, 1, &info) != 1) die("open");
  xen_pfn_t gpfns = 0;
  if (!(info.flags & XEN_DOMINF_hvm_guest)) know_frames(domid);
  else if (xc_domain_nr_gpfns(xc, domid, &gpfns) < 0) die("number of pfns");
  else nr_pfns = gpfns;
  static uint64_t pfns[BATCH];
  static xen_pfn_t frames[BATCH];
  size_t n = 0;
  for (uint64_t pfn = 0; pfn < nr_pfns; ++pfn) {
    const int none = pv.p2m_table && (pv.p2m_table[pfn] > max_mfn || type_of(pfn) >= 13);
    pfns[n] = pfn;
    frames[n] = pv.p2m_table ? pv.p2m_table[pfn] : pfn;
    n += !none;
    if (n < BATCH && pfn + 1 < nr_pfns) continue;
    if (pv.p2m_table || !is_empty(domid, pfns[0], n, info.shared_info_frame))
      put_batch(domid, pfns, frames, n);
    n = 0;
  }
  if (fclose(out) != 0) die("write");
  printf("%lu %lu\n", (unsigned long)nr_pfns, (unsigned long)written);
  return 0;
}
