// A tile of 32 x 32 a workgroup, 4 x 4 an invocation, for operands that lie in whole vectors.
#import matmul_vectors
#import matmul_tile

const TILE = 32u;
const INVOCATIONS = 64u;
