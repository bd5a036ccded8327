// How a kernel whose result nothing is done to writes it.

fn store(i: u32, value: Element) {
    y[i] = value;
}
