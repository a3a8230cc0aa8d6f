/* Prints a PV domain's number of pfns and how many there are of each page type, as libxenguest sees them.
 * usage: page_types DOMID */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xenctrl.h>
#include <xenguest.h>

int main(int argc, char **argv) {
  struct xc_domain_meminfo info;
  unsigned long counts[16] = {0};
  xc_interface *xc = xc_interface_open(0, 0, 0);
  if (argc != 2 || !xc) return 2;
  memset(&info, 0, sizeof info);
  if (xc_map_domain_meminfo(xc, atoi(argv[1]), &info) != 0) return 1;
  for (unsigned long i = 0; i < info.p2m_size; ++i) counts[(info.pfn_type[i] >> 28) & 15]++;
  printf("%lu", info.p2m_size);
  for (int i = 0; i < 16; ++i) printf(" %lu", counts[i]);
  printf("\n");
  return 0;
}
