// The multiscale loops for every processor of this architecture.
#define SEQMEM_ISA baseline
#define SEQMEM_VECTOR_BYTES 16
#include "multiscale_table.h"
