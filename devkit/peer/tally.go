// What the requests of a load run met, added up. Nothing here waits, dials or reads a clock: times are offsets from
// the start of the run and come with the outcomes.
package main

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	keptFailures = 20
	keptSlowest  = 5
)

// outcome is one finished request. Its latency is finished - due; lag is the part of it that the peer caused by
// beginning late.
type outcome struct {
	url           string
	due, finished time.Duration
	lag           time.Duration
	dns, connect  time.Duration
	err           error
}

// progress is printed once a second. Counts are since the start; longest_ms is of the requests that finished in this
// second.
type progress struct {
	Event   string  `json:"event"`
	Second  int     `json:"second"`
	Sent    int     `json:"sent"`
	Done    int     `json:"done"`
	Failed  int     `json:"failed"`
	Longest float64 `json:"longest_ms"`
}

// summary is printed at the end. Latencies are of all requests, the failed ones too: that is how long an agent waited.
type summary struct {
	Event      string         `json:"event"`
	Rate       float64        `json:"rate"`
	Sent       int            `json:"sent"`
	Succeeded  int            `json:"succeeded"`
	Failed     int            `json:"failed"`
	Errors     map[string]int `json:"errors"`
	P50        float64        `json:"p50_ms"`
	P99        float64        `json:"p99_ms"`
	P50DNS     float64        `json:"p50_dns_ms"`
	P99DNS     float64        `json:"p99_dns_ms"`
	Longest    float64        `json:"longest_ms"`
	LongestDNS float64        `json:"longest_dns_ms"`
	LongestLag float64        `json:"longest_lag_ms"` // when this is high the machine was too busy to measure
	Dead       float64        `json:"dead_ms"`        // longest time without a success, while requests were begun
	Failures   []failedOne    `json:"failures"`       // the first
	Slowest    []slowOne      `json:"slowest"`
}

type failedOne struct {
	At  float64 `json:"at_ms"` // when it was due
	URL string  `json:"url"`
	failure
}

type slowOne struct {
	At      float64 `json:"at_ms"` // when it was due
	URL     string  `json:"url"`
	Total   float64 `json:"ms"`
	DNS     float64 `json:"dns_ms"`
	Connect float64 `json:"connect_ms"`
}

// tally may be used by many goroutines.
type tally struct {
	mutex       sync.Mutex
	sent        int
	latencies   []time.Duration
	lookups     []time.Duration
	errors      map[string]int
	failed      int
	failures    []failedOne
	slowest     []outcome // slowest first
	longestDNS  time.Duration
	longestLag  time.Duration
	recent      time.Duration // longest since the last progress
	lastSuccess time.Duration
	dead        time.Duration
}

func newTally() *tally {
	return &tally{errors: map[string]int{}, failures: []failedOne{}}
}

func (t *tally) begin() {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.sent++
}

func (t *tally) finish(one outcome) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	latency := one.finished - one.due
	t.latencies = append(t.latencies, latency)
	t.lookups = append(t.lookups, one.dns)
	t.recent = max(t.recent, latency)
	t.longestDNS = max(t.longestDNS, one.dns)
	t.longestLag = max(t.longestLag, one.lag)
	t.keepSlow(one)

	if one.err != nil {
		failure := failureOf(one.err)
		t.failed++
		t.errors[failure.Kind]++
		if len(t.failures) < keptFailures {
			t.failures = append(t.failures, failedOne{milliseconds(one.due), one.url, *failure})
		}
		return
	}
	// Two that finish together may arrive here in either order.
	t.dead = max(t.dead, one.finished-t.lastSuccess)
	t.lastSuccess = max(t.lastSuccess, one.finished)
}

func (t *tally) keepSlow(one outcome) {
	slower := func(a, b outcome) int { return cmp.Compare(b.finished-b.due, a.finished-a.due) }
	place, _ := slices.BinarySearchFunc(t.slowest, one, slower)
	if place == keptSlowest {
		return
	}
	t.slowest = slices.Insert(t.slowest, place, one)
	t.slowest = t.slowest[:min(len(t.slowest), keptSlowest)]
}

func (t *tally) progress(second int) progress {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	longest := t.recent
	t.recent = 0
	return progress{"progress", second, t.sent, len(t.latencies), t.failed, milliseconds(longest)}
}

// summary sums up a run that began its last request at end.
func (t *tally) summary(rate float64, end time.Duration) summary {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	sorted, lookups := slices.Sorted(slices.Values(t.latencies)), slices.Sorted(slices.Values(t.lookups))
	slowest := []slowOne{}
	for _, one := range t.slowest {
		slowest = append(slowest, slowOne{
			milliseconds(one.due), one.url, milliseconds(one.finished - one.due), milliseconds(one.dns),
			milliseconds(one.connect),
		})
	}
	return summary{
		Event: "summary", Rate: rate, Sent: t.sent, Succeeded: len(t.latencies) - t.failed, Failed: t.failed,
		Errors: maps.Clone(t.errors), P50: milliseconds(percentile(sorted, 50)),
		P99: milliseconds(percentile(sorted, 99)), Longest: milliseconds(percentile(sorted, 100)),
		P50DNS: milliseconds(percentile(lookups, 50)), P99DNS: milliseconds(percentile(lookups, 99)),
		LongestDNS: milliseconds(t.longestDNS), LongestLag: milliseconds(t.longestLag),
		Dead:     milliseconds(max(t.dead, end-t.lastSuccess)),
		Failures: slices.Clone(t.failures), Slowest: slowest,
	}
}

// percentile is the smallest value that at least percent of all don't exceed; zero when there are none.
func percentile(sorted []time.Duration, percent float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(float64(len(sorted)) * percent / 100))
	return sorted[max(rank, 1)-1]
}
