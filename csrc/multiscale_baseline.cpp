// Multiscale loops for every processor of the architecture.
#include "multiscale.h"

#define SEQMEM_ISA baseline
#define SEQMEM_VECTOR_BYTES 16
#include "multiscale_table.h"
