// Products of matrices of f16 by units of 16 x 16: tiles of 128 x 128 a workgroup.
#import matmul_matrices_16

const DOWN = 4u;
const ACROSS = 4u;
