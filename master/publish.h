/* What the master tells of itself in the scoreboard; whoever wants to know reads it there. */
#pragma once

struct master;

void publish(struct master *m); /* each tick; cheap when nothing has changed */
