/* Grants a page of its own to a domain, prints the reference and stays, so that the page does.
 * usage: grant_page DOMID */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xen/gntalloc.h>

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  struct ioctl_gntalloc_alloc_gref grant = {
      .domid = (uint16_t)atoi(argv[1]), .flags = GNTALLOC_FLAG_WRITABLE, .count = 1};
  int device = open("/dev/xen/gntalloc", O_RDWR);
  if (device < 0 || ioctl(device, IOCTL_GNTALLOC_ALLOC_GREF, &grant) != 0) return 1;
  uint64_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)grant.index);
  if (page == MAP_FAILED) return 1;
  page[0] = 0x646f6d3020776173;
  printf("%u\n", grant.gref_ids[0]);
  fflush(stdout);
  for (;;) pause();
}
