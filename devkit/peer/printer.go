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
