// Included by every header whose functions all instruction sets share. The linker keeps one copy of an inline function, and one
// compiled for AVX-512 would crash a processor without it. So these headers come before the pragma of an instruction set; the
// others are in a namespace per instruction set.
#ifdef SEQMEM_ISA
#error "include this header before SEQMEM_ISA is defined: its functions are shared by all instruction sets"
#endif
