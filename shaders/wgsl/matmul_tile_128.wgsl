// A tile of 128 x 128 a workgroup, 8 x 8 an invocation, for operands that lie in whole vectors.
#import matmul_vectors
#import matmul_tile

const TILE = 128u;
const INVOCATIONS = 256u;
