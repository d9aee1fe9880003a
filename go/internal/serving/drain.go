package serving

import (
	"cmp"
	"net/http"
	"time"

	"clawker-fw/internal/kernel"
)

// Draining is a line of drain's output: the number of open connections.
type Draining struct {
	Connections int `json:"connections"`
}

const (
	tellEvery    = 100 * time.Millisecond
	lookEvery    = 10 * time.Millisecond
	ordinaryRest = time.Second
	httpCloses   = 5 * time.Second // Envoy's drain time: until then, HTTP connections close on their own
	lateAfter    = 50 * time.Millisecond
	restsLeft    = 50 // a connection with a pause between requests must be caught in one of so many
)

// Drain makes Envoy drain the agents' listeners gracefully: open connections continue, and HTTP connections close
// after their next response. The internal listener of their requests isn't drained. Other connections are closed
// in a pause. It reports the number of open connections until it is 0 or the limit has passed.
func Drain(program envoy, limit time.Duration, tell func(Draining) error) error {
	if _, err := program.do(http.MethodPost, "/drain_listeners?graceful&inboundonly"); err != nil {
		return err
	}
	sources, _ := kernel.Sources() // without any, connections wait for the end of the drain
	histories := pauses{}
	closing := time.Now().Add(min(httpCloses, limit/2))
	for end := time.Now().Add(limit); ; {
		connections, err := program.Connections()
		if err != nil {
			return err
		}
		if err := tell(Draining{connections}); err != nil {
			return err
		}
		if connections == 0 || time.Now().After(end) {
			return nil
		}
		for next := time.Now().Add(tellEvery); time.Now().Before(next); {
			began := time.Now()
			connections, _ := kernel.Connections(sources)
			if time.Since(began) < lateAfter { // otherwise a request may have arrived meanwhile
				histories.look(connections, time.Until(end), time.Now().After(closing))
			}
			time.Sleep(max(lookEvery, time.Since(began)))
		}
	}
}

// pauses is a drain's history of each connection to a host.
type pauses map[kernel.Cookie]*pause

// pause is a connection's history: the bytes so far, whether a request awaits its answer, the current rest, the
// average rest before a request, and the longest within an answer.
type pause struct {
	sent, received             uint64
	waits                      bool
	rest, requested, continued time.Duration
}

// look updates the history of connections, and closes those in the right pause when closing. Where the kernel
// can't close them, they wait for the end.
func (p pauses) look(connections map[kernel.Cookie]kernel.Connection, left time.Duration, closing bool) {
	for cookie, connection := range connections {
		if p[cookie] == nil {
			p[cookie] = &pause{sent: connection.Sent, received: connection.Received}
		}
		if p[cookie].ends(connection, left) && closing {
			_ = connection.Close()
		}
	}
}

// ends reports whether to end a connection now, with this much of the drain left.
//
// An idle one has rested for longer than the rest of the drain, and longer than before. A repeatedly used one has
// just begun to rest, compared with its pauses between requests, and for longer than within its answers.
func (p *pause) ends(now kernel.Connection, left time.Duration) bool {
	switch {
	case now.Sent != p.sent:
		p.requested = (cmp.Or(p.requested, p.rest) + p.rest) / 2
		p.waits = now.Received == p.received
	case now.Received != p.received:
		p.continued = max(p.continued, p.rest)
		p.waits = false
	}
	p.sent, p.received, p.rest = now.Sent, now.Received, now.Rest
	if p.waits {
		p.rest = 0
	}
	idle := p.rest >= max(left, ordinaryRest, 2*p.requested, 2*p.continued)
	between := p.rest > 0 && p.rest >= max(left/restsLeft, 2*p.continued) && p.rest <= p.requested/3
	return idle || between
}
