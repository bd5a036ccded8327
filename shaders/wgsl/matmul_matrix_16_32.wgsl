// Products of matrices of f16 by units of 16 x 16: tiles of 32 x 32 a workgroup.
#import matmul_matrices_16

const DOWN = 1u;
const ACROSS = 1u;
