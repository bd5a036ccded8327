// A tile of 64 x 64 a workgroup, 4 x 4 an invocation, for operands of any strides.
#import matmul_scalars
#import matmul_tile

const TILE = 64u;
const INVOCATIONS = 256u;
