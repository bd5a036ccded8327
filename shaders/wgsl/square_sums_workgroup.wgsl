// square_sums_team, by barriers.
#import team_barriers
#import square_sums_team
