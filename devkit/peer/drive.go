// The verbs drive and keepalive: clients in closed loops, each of which begins its next request when the last one has
// ended.
//
// drive says what a way carries, to compare ways, and not how long an agent waits while something is broken, which is
// for the verb load. keepalive is one client with one connection, to see what cuts it. Go's own client would repeat a
// GET on a new connection when the server has closed an idle one, which is the very thing to count.
package main

import (
	"context"
	"flag"
	"net/http"
	"slices"
	"sync"
	"time"
)

// connectedEvent is printed for every connection that keepalive opens.
type connectedEvent struct {
	Event   string `json:"event"`
	Address string `json:"address"`
}

// driveSummary is printed at the end. A polite close is one that the server announced with its last response.
type driveSummary struct {
	Event        string         `json:"event"`
	Requests     int            `json:"requests"`
	Failed       int            `json:"failed"`
	Errors       map[string]int `json:"errors"`
	Connections  int            `json:"connections"`
	PoliteCloses int            `json:"polite_closes"`
	Bytes        int64          `json:"bytes"` // of bodies
	Seconds      float64        `json:"seconds"`
	P50          float64        `json:"p50_ms"` // of requests that succeeded, with their connection if it was a new one
	P99          float64        `json:"p99_ms"`
}

// driver is what clients do, and what became of it.
type driver struct {
	sent     request
	to       destination
	kept     bool          // whether a client goes on with its connection
	interval time.Duration // between the beginnings of two requests, if they do not take longer
	timeout  time.Duration
	connects func(address string)

	mutex   sync.Mutex
	took    []time.Duration
	summary driveSummary
}

func declareDrive(flags *flag.FlagSet) action {
	clients := flags.Int("clients", 8, "how many make requests at the same time")
	seconds := flags.Float64("seconds", 3, "for how long to begin requests")
	kept := flags.Bool("kept", false, "make the requests of a client on one connection")
	trusted := flags.String("trust", "", "have the host prove its name by these authorities, as `PEM`")
	connect := flags.String("connect", "", "dial this `ADDRESS[:PORT]`; Host and SNI stay those of the URL")
	timeout := flags.Duration("timeout", 5*time.Second, "limit for each request")

	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		sent, to, err := requestFor(arguments[0])
		if err != nil {
			return false, err
		}
		if err := to.trust(*trusted); err != nil {
			return false, err
		}
		to.dialTo(*connect)
		driver := &driver{sent: sent, to: to, kept: *kept, timeout: *timeout, connects: func(string) {}}
		return driver.run(ctx, *clients, *seconds, out)
	}
}

func declareKeepalive(flags *flag.FlagSet) action {
	interval := flags.Duration("interval", 100*time.Millisecond, "time between the beginnings of two requests")
	seconds := flags.Float64("seconds", 10, "how long; 0 is until SIGTERM")
	timeout := flags.Duration("timeout", 5*time.Second, "limit for each request")

	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		sent, to, err := requestFor(arguments[0])
		if err != nil {
			return false, err
		}
		connects := func(address string) { out.print(connectedEvent{"connected", address}) }
		driver := &driver{sent: sent, to: to, kept: true, interval: *interval, timeout: *timeout, connects: connects}
		return driver.run(ctx, 1, *seconds, out)
	}
}

// run has clients make requests until the time is over or ctx is done, and prints the summary.
func (d *driver) run(ctx context.Context, clients int, seconds float64, out *printer) (bool, error) {
	if seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
		defer cancel()
	}
	d.summary = driveSummary{Event: "summary", Errors: map[string]int{}}
	var running sync.WaitGroup
	begin := time.Now()
	for range clients {
		running.Go(func() { d.repeat(ctx) })
	}
	running.Wait()
	slices.Sort(d.took)
	d.summary.Seconds = time.Since(begin).Seconds()
	d.summary.P50, d.summary.P99 = percentile(d.took, 50), percentile(d.took, 99)
	out.print(d.summary)
	return d.summary.Failed == 0, nil
}

// repeat makes one client's requests until ctx is done.
func (d *driver) repeat(ctx context.Context) {
	var conn *connection
	for next := time.Now(); sleep(ctx, time.Until(next)); {
		next = time.Now().Add(d.interval)
		conn = d.once(context.WithoutCancel(ctx), conn) // the request that is under way may finish
	}
	if conn != nil {
		conn.abandon()
	}
}

// connect opens a connection.
func (d *driver) connect(ctx context.Context) (*connection, error) {
	conn, took, err := open(ctx, d.to)
	if err == nil {
		d.connects(took.address)
		d.mutex.Lock()
		defer d.mutex.Unlock()
		d.summary.Connections++
	}
	return conn, err
}

// once makes a request, on a new connection if there is none, and returns the connection if it is for the next one.
func (d *driver) once(ctx context.Context, conn *connection) *connection {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	var octets counter
	var response *http.Response
	var err error
	begin := time.Now()
	if conn == nil {
		conn, err = d.connect(ctx)
	}
	if err == nil {
		response, err = conn.fetch(ctx, d.sent, &octets)
	}
	took := time.Since(begin)
	closes := complete(err) && response.Close
	if conn != nil && (closes || !complete(err) || !d.kept) {
		conn.abandon() // with a farewell, a client would wait for the other end
		conn = nil
	}

	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.summary.Requests++
	d.summary.Bytes += int64(octets)
	if closes {
		d.summary.PoliteCloses++
	}
	if err != nil {
		d.summary.Failed++
		d.summary.Errors[kindOf(err)]++
	} else {
		d.took = append(d.took, took)
	}
	return conn
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(data []byte) (int, error) {
	*c += counter(len(data))
	return len(data), nil
}
