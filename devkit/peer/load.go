// The verb load: agents that never wait for each other.
//
// The loop is open. Request i begins at start + i/rate, whatever became of those before it, and its latency counts
// from that moment even if the peer itself was late. A closed loop would stop asking exactly while nobody answers, and
// so hide the outage (coordinated omission).
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const keptFailures = 20

// agentRequest is one of the requests that take turns. With anyLabel in its host, each is for a name of its own.
type agentRequest struct {
	url  string
	sent request
	to   destination
}

// once is the request as it is made one time.
func (r agentRequest) once() agentRequest {
	if strings.Contains(r.to.host, anyLabel) {
		label := randomLabel()
		for _, field := range []*string{&r.url, &r.sent.host, &r.to.host, &r.to.serverName} {
			*field = strings.Replace(*field, anyLabel, label, 1)
		}
	}
	return r
}

// outcome is one finished request. Its times are offsets from the start of the run.
type outcome struct {
	url           string
	due, finished time.Duration
	lag           time.Duration // what the peer caused by beginning late
	timing
	err error
}

func (o outcome) latency() time.Duration { return o.finished - o.due }

// tally has what the requests met. It may be used by many goroutines.
type tally struct {
	mutex    sync.Mutex
	sent     int
	failed   int
	outcomes []outcome // in the order in which they ended
}

// progress is printed once a second. Counts are since the start.
type progress struct {
	Event  string `json:"event"`
	Second int    `json:"second"`
	Sent   int    `json:"sent"`
	Done   int    `json:"done"`
	Failed int    `json:"failed"`
}

// summary is printed at the end. Latencies are of all requests, the failed ones too: that is how long an agent waited.
type summary struct {
	Event      string         `json:"event"`
	Sent       int            `json:"sent"`
	Failed     int            `json:"failed"`
	Errors     map[string]int `json:"errors"`
	P50        float64        `json:"p50_ms"`
	P99        float64        `json:"p99_ms"`
	Longest    float64        `json:"longest_ms"`
	LongestDNS float64        `json:"longest_dns_ms"`
	LongestTCP float64        `json:"longest_connect_ms"` // and TLS
	LongestLag float64        `json:"longest_lag_ms"`     // when this is high the machine was too busy to measure
	Dead       float64        `json:"dead_ms"`            // longest time without a success, while requests were begun
	Failures   []metOne       `json:"failures"`           // the first
}

// metOne is what a request met that failed.
type metOne struct {
	At    float64  `json:"at_ms"` // when it was due
	URL   string   `json:"url"`
	Total float64  `json:"ms"`
	Error *failure `json:"error"`
}

func declareLoad(flags *flag.FlagSet) action {
	rate := flags.Float64("rate", 200, "requests per second; each leaves a port in TIME_WAIT for 60 s")
	seconds := flags.Float64("seconds", 10, "how long to begin requests; 0 is until SIGTERM")
	timeout := flags.Duration("timeout", 5*time.Second, "limit for each request, from lookup to end of body")

	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		if *rate <= 0 {
			return false, errors.New("the rate must be positive")
		}
		var requests []agentRequest
		for _, location := range arguments {
			location = strings.Replace(location, "//*.", "//"+anyLabel+".", 1)
			sent, to, err := requestFor(location)
			if err != nil {
				return false, err
			}
			requests = append(requests, agentRequest{location, sent, to})
		}
		summary := load(ctx, requests, *rate, *seconds, *timeout, out)
		out.print(summary)
		return summary.Failed == 0, nil
	}
}

// load begins requests until the time is over or ctx is done, waits for those that are under way, and adds them up.
func load(
	ctx context.Context, requests []agentRequest, rate, seconds float64, timeout time.Duration, out *printer,
) summary {
	tally := &tally{}
	start := time.Now()
	reporting, stopReports := context.WithCancel(context.Background())
	var reports, underWay sync.WaitGroup
	reports.Go(func() { tally.report(reporting, out) })

	// The signal ends the beginning of requests, not the requests.
	requestContext := context.WithoutCancel(ctx)
	total := int(math.Ceil(rate*seconds - 1e-9))
	for i := 0; seconds == 0 || i < total; i++ {
		due := time.Duration(float64(i) / rate * float64(time.Second))
		if !sleep(ctx, due-time.Since(start)) {
			break
		}
		tally.begin()
		underWay.Go(func() {
			tally.attempt(requestContext, requests[i%len(requests)].once(), start, due, timeout)
		})
	}
	end := time.Since(start)
	underWay.Wait()
	stopReports()
	reports.Wait()
	return tally.summary(end)
}

func (t *tally) begin() {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.sent++
}

// attempt makes one request. The connection is closed after the result is in: goodbyes are no latency.
func (t *tally) attempt(ctx context.Context, request agentRequest, start time.Time, due, timeout time.Duration) {
	lag := time.Since(start) - due
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, took, finish, err := fetchOnce(ctx, request.to, request.sent, io.Discard)
	defer finish()
	finished := time.Since(start)
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.outcomes = append(t.outcomes, outcome{request.url, due, finished, lag, took, err})
	if err != nil {
		t.failed++
	}
}

// report prints the progress once a second, counting from 1.
func (t *tally) report(ctx context.Context, out *printer) {
	for second := 1; sleep(ctx, time.Second); second++ {
		t.mutex.Lock()
		out.print(progress{"progress", second, t.sent, len(t.outcomes), t.failed})
		t.mutex.Unlock()
	}
}

// summary sums up a run that began its last request at end.
func (t *tally) summary(end time.Duration) summary {
	found := summary{Event: "summary", Sent: t.sent, Failed: t.failed, Errors: map[string]int{}, Failures: []metOne{}}
	var latencies []time.Duration
	var lookup, connect, lag, dead, succeeded time.Duration
	for _, each := range t.outcomes {
		latencies = append(latencies, each.latency())
		lookup, connect, lag = max(lookup, each.dns), max(connect, each.connect), max(lag, each.lag)
		if each.err == nil {
			dead, succeeded = max(dead, each.finished-succeeded), max(succeeded, each.finished)
			continue
		}
		found.Errors[kindOf(each.err)]++
		if len(found.Failures) < keptFailures {
			found.Failures = append(found.Failures, metOne{
				milliseconds(each.due), each.url, milliseconds(each.latency()), failureOf(each.err),
			})
		}
	}
	slices.Sort(latencies)
	found.P50, found.P99, found.Longest = percentile(latencies, 50), percentile(latencies, 99), percentile(latencies, 100)
	found.LongestDNS, found.LongestTCP, found.LongestLag = milliseconds(lookup), milliseconds(connect), milliseconds(lag)
	found.Dead = milliseconds(max(dead, end-succeeded))
	return found
}

// The verbs drive and keepalive: clients in closed loops, each of which begins its next request when the last one has
// ended.
//
// drive says what a way carries, to compare ways, and not how long an agent waits while something is broken, which is
// for the verb load. keepalive is one client with one connection, to see what cuts it. Go's own client would repeat a
// GET on a new connection when the server has closed an idle one, which is the very thing to count.

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
	connects func()

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
		driver := &driver{sent: sent, to: to, kept: *kept, timeout: *timeout, connects: func() {}}
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
		connects := func() { out.print(event{"connected"}) }
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
	conn, _, err := open(ctx, d.to)
	if err == nil {
		d.connects()
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
