// square_sums_team, by subgroups.
#import team_subgroups
#import square_sums_team
