package main

import (
	"maps"
	"testing"
	"time"
)

// A percentile is one of the values: the smallest that covers its share.
func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, test := range []struct {
		sorted  []time.Duration
		percent float64
		want    time.Duration
	}{
		{nil, 50, 0},
		{hundred[:1], 50, 1},
		{hundred[:2], 50, 1},
		{hundred[:3], 50, 2},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 100, 100},
	} {
		if got := percentile(test.sorted, test.percent); got != test.want {
			t.Errorf("%v of %d values: %d, want %d", test.percent, len(test.sorted), got, test.want)
		}
	}
}

// Successes are offsets in milliseconds at which one finished; the run begins its last request at 1000.
func TestDeadTime(t *testing.T) {
	for name, test := range map[string]struct {
		successes []int
		want      float64
	}{
		"never one":          {nil, 1000},
		"late start":         {[]int{400, 500, 600, 700, 800, 900, 1000}, 400},
		"gap in the middle":  {[]int{100, 200, 700, 800, 900, 1000}, 500},
		"nothing at the end": {[]int{100, 200, 300}, 700},
		"after the end":      {[]int{300, 600, 900, 1300}, 400},
		"out of order":       {[]int{300, 601, 600, 900, 1000}, 301},
	} {
		t.Run(name, func(t *testing.T) {
			tally := newTally()
			for _, success := range test.successes {
				tally.begin()
				tally.finish(outcome{finished: time.Duration(success) * time.Millisecond})
			}
			if got := tally.summary(200, time.Second).Dead; got != test.want {
				t.Errorf("%v ms, want %v", got, test.want)
			}
		})
	}
}

// Counts, kinds, the longest and the slowest are those of the outcomes, and lists stay short.
func TestSummary(t *testing.T) {
	tally := newTally()
	const requests, failures = 100, 30
	for i := range requests {
		tally.begin()
		due := time.Duration(i) * 10 * time.Millisecond
		latency, dns := time.Duration(i)*time.Millisecond, time.Duration(i)*time.Microsecond
		one := outcome{url: "u", due: due, finished: due + latency, dns: dns}
		if i < failures {
			one.err = statusError("503 Service Unavailable")
		}
		tally.finish(one)
		if i == 49 {
			if got, want := tally.progress(1), (progress{"progress", 1, 50, 50, failures, 49}); got != want {
				t.Errorf("%+v", got)
			}
		}
	}
	if got := tally.progress(2); got.Longest != 99 {
		t.Errorf("%+v", got)
	}
	if got := tally.progress(3); got.Longest != 0 {
		t.Errorf("nothing finished: %+v", got)
	}

	got := tally.summary(100, time.Second)
	if got.Sent != requests || got.Failed != failures || got.Succeeded != requests-failures ||
		!maps.Equal(got.Errors, map[string]int{kindHTTP: failures}) {
		t.Errorf("%+v", got)
	}
	if got.P50 != 49 || got.P99 != 98 || got.Longest != 99 || got.LongestDNS != 0.099 ||
		got.P50DNS != 0.049 || got.P99DNS != 0.098 {
		t.Errorf("%+v", got)
	}
	if len(got.Failures) != keptFailures || got.Failures[1].At != 10 || got.Failures[1].Kind != kindHTTP {
		t.Errorf("%+v", got.Failures)
	}
	if len(got.Slowest) != keptSlowest || got.Slowest[0].Total != 99 || got.Slowest[4].Total != 95 {
		t.Errorf("%+v", got.Slowest)
	}
}
