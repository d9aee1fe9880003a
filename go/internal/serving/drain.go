package serving

import (
	"cmp"
	"net/http"
	"time"

	"clawker-fw/internal/kernel"
)

// Draining is a line of the output of drain: how many connections are open.
type Draining struct {
	Connections int `json:"connections"`
}

const (
	tellEvery    = 100 * time.Millisecond
	lookEvery    = 10 * time.Millisecond
	ordinaryRest = time.Second
	httpCloses   = 5 * time.Second // Envoy's drain time: until then, HTTP connections close by themselves
	lateAfter    = 50 * time.Millisecond
	restsLeft    = 50 // a connection between requests has to be met in one of so many pauses
)

// Drain asks Envoy to drain the listeners to which agents connect gracefully: open connections continue, and HTTP
// connections close after their next response. The internal listener, which their requests go through, is not drained.
// Others are closed in a pause. It tells the number of open connections until it is 0 or the limit has passed.
func Drain(program envoy, limit time.Duration, tell func(Draining) error) error {
	if _, err := program.do(http.MethodPost, "/drain_listeners?graceful&inboundonly"); err != nil {
		return err
	}
	sources, _ := kernel.Sources() // without any, connections wait for the end of the drain
	known := pauses{}
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
			if time.Since(began) < lateAfter { // or a request may have come meanwhile
				known.look(connections, time.Until(end), time.Now().After(closing))
			}
			time.Sleep(max(lookEvery, time.Since(began)))
		}
	}
}

// pauses is what a drain has seen of each connection to a host.
type pauses map[kernel.Cookie]*pause

// pause is what was seen of a connection: how much was sent and received, whether a request waits for its answer, for how long
// nothing has happened, how long that lasts before a request, and how long at most within an answer.
type pause struct {
	sent, received             uint64
	waits                      bool
	rest, requested, continued time.Duration
}

// look learns of connections, and closes those in the right pause if it may. Where the kernel can't, they wait for the end.
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

// ends reports whether a connection should end now, with so much of the drain left.
//
// One that is idle has rested for as long as the drain may still last, and longer than ever before. One that is used again and
// again has just begun to rest, compared with its other pauses between requests, and longer than its answers ever paused.
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
