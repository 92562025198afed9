// Loops of diagonal state space models for every processor of the architecture.
#include "diagonal_ssm.h"

#define SEQMEM_ISA baseline
#define SEQMEM_VECTOR_BYTES 16
#include "diagonal_ssm_table.h"
