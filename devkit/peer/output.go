// The answer on stdout: one JSON object per line, and how times are written in it.
package main

import (
	"encoding/json"
	"io"
	"sync"
	"time"
)

// printer writes whole lines, whoever calls it.
type printer struct {
	mutex  sync.Mutex
	writer io.Writer
}

// event is a line that says no more than what has happened.
type event struct {
	Event string `json:"event"`
}

// print writes one object. A reader that has gone away is no reason to stop measuring, so errors are dropped.
func (p *printer) print(value any) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	encoder := json.NewEncoder(p.writer)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(value)
}

// milliseconds is a duration as fractional milliseconds, to the microsecond.
func milliseconds(duration time.Duration) float64 {
	return float64(duration.Microseconds()) / 1000
}

// percentile is the smallest value that at least percent of all don't exceed; zero when there are none.
func percentile(sorted []time.Duration, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := (len(sorted)*percent + 99) / 100
	return milliseconds(sorted[max(rank, 1)-1])
}
