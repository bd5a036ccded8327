// Sums and maxima over a workgroup of 256, in a fixed order.

var<workgroup> workgroup_values: array<f32, 256>;

fn workgroup_sum(value: f32, lane: u32) -> f32 {
    workgroupBarrier();
    workgroup_values[lane] = value;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            workgroup_values[lane] += workgroup_values[lane + half];
        }
    }
    workgroupBarrier();
    return workgroup_values[0];
}

fn workgroup_max(value: f32, lane: u32) -> f32 {
    workgroupBarrier();
    workgroup_values[lane] = value;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            workgroup_values[lane] = max(workgroup_values[lane], workgroup_values[lane + half]);
        }
    }
    workgroupBarrier();
    return workgroup_values[0];
}
