// Rows by teams: LANES invocations share a row, in a workgroup of ROWS rows. How they join what each has found stands in
// team_barriers or team_subgroups, one of which is imported before this.
#import common

override LANES: u32 = 1u;
override ROWS: u32 = 64u;

// The vectors of a row that an invocation goes through, in steps of LANES; none if the row is past the end.
struct Walk { row: u32, first: u32, end: u32 }

fn walk_of(invocation: Invocation, local: Local, rows: u32, width: u32) -> Walk {
    let row = linear_workgroup(invocation.workgroup, invocation.workgroups) * ROWS + local.row;
    let start = row * (width / WIDTH);
    return Walk(row, start + local.lane, select(start, start + width / WIDTH, row < rows));
}
