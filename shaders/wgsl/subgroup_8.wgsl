// How many invocations multiply matrices of 8 x 8 together.
enable f16;
enable wgpu_cooperative_matrix;
#import subgroup

const SIDE = 8u;

alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sums = coop_mat8x8<f32, C>;
