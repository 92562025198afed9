// Row kernels for every processor of the architecture.
#include "kernels.h"

#define SEQMEM_ISA baseline
#define SEQMEM_VECTOR_BYTES 16
#include "kernels_table.h"
