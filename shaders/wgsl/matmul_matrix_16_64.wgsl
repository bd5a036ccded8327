// Products of matrices of f16 by units of 16 x 16: tiles of 64 x 64 a workgroup.
#import matmul_matrices_16

const DOWN = 2u;
const ACROSS = 2u;
