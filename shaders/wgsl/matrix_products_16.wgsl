// Sums of products of 16 x 16 matrices of f16, summed in f32 by the hardware of a subgroup.
enable f16;
enable wgpu_cooperative_matrix;
#import common
#import matrix_products

const SIDE = 16u;

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;
