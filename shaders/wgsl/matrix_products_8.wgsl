// Sums of products of 8 x 8 matrices of f16, summed in f32 by the hardware of a subgroup.
enable f16;
enable wgpu_cooperative_matrix;
#import common
#import matrix_products

const SIDE = 8u;

alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sums = coop_mat8x8<f32, C>;
