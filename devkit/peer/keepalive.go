// The verb keepalive: one connection, used again and again, to see what cuts it.
//
// Go's own client would repeat a GET on a new connection when the server has closed an idle one, which is the very
// thing to count; so the requests are written by hand (exchange.go).
package main

import (
	"context"
	"flag"
	"io"
	"time"
)

// connectedEvent is printed for every connection that is opened.
type connectedEvent struct {
	Event   string  `json:"event"`
	At      float64 `json:"at_ms"`
	Address string  `json:"address"`
}

// keepaliveSummary is printed at the end. A polite close is one that the server announced with its last response.
type keepaliveSummary struct {
	Event        string         `json:"event"`
	Requests     int            `json:"requests"`
	Failed       int            `json:"failed"`
	Connections  int            `json:"connections"`
	PoliteCloses int            `json:"polite_closes"`
	Errors       map[string]int `json:"errors"`
	FirstBreak   *float64       `json:"first_break_ms"` // when the first request failed
}

func declareKeepalive(flags *flag.FlagSet) action {
	interval := flags.Duration("interval", 100*time.Millisecond, "time between the beginnings of two requests")
	seconds := flags.Float64("seconds", 10, "how long; 0 is until SIGTERM")
	timeout := flags.Duration("timeout", 5*time.Second, "limit for each request")
	nameserver := declareServer(flags, "dns-server")

	return func(ctx context.Context, positional []string, out *printer) (bool, error) {
		location, err := oneArgument(positional, "URL")
		if err != nil {
			return false, err
		}
		if *interval <= 0 || !(*seconds >= 0) {
			return false, usageError("the interval must be positive, the seconds not negative")
		}
		sent, to, err := requestFor(location)
		if err != nil {
			return false, err
		}
		to.nameserver = nameserver()
		client := &keepaliveClient{
			sent: sent, to: to, timeout: *timeout, out: out, start: time.Now(),
			summary: keepaliveSummary{Event: "summary", Errors: map[string]int{}},
		}
		client.repeat(ctx, *interval, *seconds)
		out.print(client.summary)
		return client.summary.Failed == 0, nil
	}
}

// keepaliveClient holds the one connection, which is nil until it is needed and after it has ended.
type keepaliveClient struct {
	sent    request
	to      destination
	timeout time.Duration
	out     *printer
	start   time.Time
	conn    *connection
	summary keepaliveSummary
}

// repeat makes requests until the time is over or ctx is done. One that takes longer than the interval delays the
// next; those that are missed are not made up for.
func (k *keepaliveClient) repeat(ctx context.Context, interval time.Duration, seconds float64) {
	if seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
		defer cancel()
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		// The end of the run is no break, so the request that is under way may finish.
		k.request(context.WithoutCancel(ctx))
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	if k.conn != nil {
		k.conn.finish()
	}
}

// request makes one request and counts what became of it and of the connection.
func (k *keepaliveClient) request(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	at := time.Since(k.start)
	k.summary.Requests++
	if err := k.fetch(ctx, at); err != nil {
		k.summary.Failed++
		k.summary.Errors[kindOf(err)]++
		if k.summary.FirstBreak == nil {
			offset := milliseconds(at)
			k.summary.FirstBreak = &offset
		}
	}
}

func (k *keepaliveClient) fetch(ctx context.Context, at time.Duration) error {
	if k.conn == nil {
		conn, took, err := open(ctx, k.to)
		if err != nil {
			return err
		}
		k.conn = conn
		k.summary.Connections++
		k.out.print(connectedEvent{"connected", milliseconds(at), took.address})
	}
	response, err := k.conn.fetch(ctx, k.sent, io.Discard)
	switch {
	case !complete(err):
		k.conn.abandon()
		k.conn = nil
	case response.Close:
		k.summary.PoliteCloses++
		k.conn.finish()
		k.conn = nil
	}
	return err
}
