/* Compares the pages of a core dump with those of the domain, which stands still: the table of pfns and the pages are at the
 * offsets given. Prints how many there are and how many Xen says the domain has.
 * usage: core_pages DOMID FILE PAGES_OFFSET PFNS_OFFSET PAGES */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>

static int fail(const char *what, uint64_t pfn) {
  printf("%s at pfn 0x%lx\n", what, (unsigned long)pfn);
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 6) return 2;
  const uint32_t domid = atoi(argv[1]);
  const long pages_at = atol(argv[3]), pfns_at = atol(argv[4]), n = atol(argv[5]);
  FILE *pages = fopen(argv[2], "r"), *pfns = fopen(argv[2], "r");
  xc_interface *xc = xc_interface_open(0, 0, 0);
  xenforeignmemory_handle *memory = xenforeignmemory_open(0, 0);
  xc_domaininfo_t info;
  if (!pages || !pfns || !xc || !memory || xc_domain_getinfolist(xc, domid, 1, &info) != 1) return 2;
  fseek(pages, pages_at, SEEK_SET);
  fseek(pfns, pfns_at, SEEK_SET);
  uint64_t last = 0;
  static uint8_t copy[4096];
  for (long i = 0; i < n; ++i) {
    uint64_t pfn;
    if (fread(&pfn, 8, 1, pfns) != 1 || fread(copy, 4096, 1, pages) != 1) return fail("the file ends", i);
    if (i > 0 && pfn <= last) return fail("not ascending", pfn);
    last = pfn;
    xen_pfn_t frame = pfn;
    int error = 0;
    void *page = xenforeignmemory_map(memory, domid, PROT_READ, 1, &frame, &error);
    if (!page || error) return fail("no page", pfn);
    const int same = memcmp(page, copy, 4096) == 0;
    xenforeignmemory_unmap(memory, page, 1);
    if (!same) return fail("another content", pfn);
  }
  printf("%ld %lu\n", n, (unsigned long)info.tot_pages);
  return 0;
}
