/* parameterized.h - nothing: no test of ours has parameters yet. */
