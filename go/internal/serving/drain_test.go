package serving

import (
	"testing"
	"time"

	"clawker-fw/internal/kernel"
)

const ms = time.Millisecond

// answered returns a connection whose host has answered a number of requests, and then was silent for a while.
func answered(requests uint64, rest time.Duration) kernel.Connection {
	return kernel.Connection{Sent: requests, Received: requests, Rest: rest}
}

// A connection ends in the right pause: when it is idle, or just after an answer if it is used repeatedly.
func TestPauses(t *testing.T) {
	waiting := kernel.Connection{Sent: 2, Received: 1}
	continued := kernel.Connection{Sent: 1, Received: 2}
	for name, test := range map[string]struct {
		before []kernel.Connection
		now    kernel.Connection
		left   time.Duration
		ends   bool
	}{
		"idle for as long as the drain lasts": {nil, answered(1, 5*time.Second), 5 * time.Second, true},
		"idle for less":                       {nil, answered(1, 5*time.Second), 6 * time.Second, false},
		"for less than a second":              {nil, answered(1, 900*ms), 0, false},
		"a request is under way":              {nil, waiting, 0, false},
		"a request of the same moment is under way": {
			[]kernel.Connection{answered(1, 190*ms)}, kernel.Connection{Sent: 2, Received: 1, Rest: 2 * time.Second}, time.Second, false,
		},
		"after an answer":                          {[]kernel.Connection{answered(1, 190*ms)}, answered(2, 60*ms), time.Second, true},
		"shortly before the next request":          {[]kernel.Connection{answered(1, 190*ms)}, answered(2, 100*ms), time.Second, false},
		"an early end is not needed yet":           {[]kernel.Connection{answered(1, 190*ms)}, answered(2, 60*ms), 10 * time.Second, false},
		"the pause is as long as between requests": {[]kernel.Connection{answered(1, 900*ms)}, answered(2, 1100*ms), time.Second, false},
		"the answer may go on": {
			[]kernel.Connection{answered(1, 190*ms), answered(2, 50*ms), {Sent: 2, Received: 3}}, kernel.Connection{Sent: 2, Received: 3, Rest: 60 * ms}, time.Second, false,
		},
		"a stream has paused for longer": {[]kernel.Connection{answered(1, 600*ms), continued}, kernel.Connection{Sent: 1, Received: 2, Rest: 1100 * ms}, time.Second, false},
	} {
		first := append(test.before, test.now)[0]
		known := &pause{sent: first.Sent, received: first.Received}
		for _, connection := range test.before {
			known.ends(connection, time.Hour)
		}
		if ends := known.ends(test.now, test.left); ends != test.ends {
			t.Errorf("%s: it ends: %v", name, ends)
		}
	}
}
