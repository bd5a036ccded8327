// What the kernels of the binary family are told.
#import binary_function
#import strided

// Periods are in vectors of four; 0 is one number. They count only where a side repeats.
struct Params { a: View, b: View, elements: u32, operation: u32, periods: vec2<u32> }

@group(1) @binding(0) var<uniform> params: Params;

override OPERATION: u32 = 0u;
