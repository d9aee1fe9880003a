// The verbs load and drive: requests of agents, and what they meet.
//
// The loop of load is open: agents never wait for each other. Request i begins at start + i/rate, whatever became of
// those before it, and its latency counts from that moment even if the peer itself was late. A closed loop would stop
// asking exactly while nobody answers, and so hide the outage (coordinated omission). With -kept, it uses connections
// again, as an agent's HTTP client does: only those that the server has not closed meanwhile.
//
// The loops of drive are closed: each client begins its next request when the last one has ended. They say what a way
// carries, to compare ways, and not how long an agent waits while something is broken. One client that keeps its
// connection shows what cuts it. Go's own client would repeat a GET on a new connection when the server has closed an
// idle one, which is the very thing to count.
package main

import (
	"context"
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

// summary is printed at the end.
type summary struct {
	Event    string         `json:"event"`
	Sent     int            `json:"sent"`
	Failed   int            `json:"failed"`
	Errors   map[string]int `json:"errors"`
	Failures []metOne       `json:"failures"` // the first
	// Of load, latencies are of all requests, the failed ones too: that is how long an agent waited. Of drive, they are
	// of requests that succeeded, with their connection if it was a new one.
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Longest float64 `json:"longest_ms"`

	// Only of load. When the longest lag is high, the machine was too busy to measure.
	LongestDNS float64 `json:"longest_dns_ms"`
	LongestTCP float64 `json:"longest_connect_ms"` // and TLS
	LongestLag float64 `json:"longest_lag_ms"`
	Dead       float64 `json:"dead_ms"` // longest time without a success, while requests were begun

	// Only of drive. A polite close is one that the server announced with its last response.
	Connections  int     `json:"connections"`
	PoliteCloses int     `json:"polite_closes"`
	Bytes        int64   `json:"bytes"` // of bodies
	Seconds      float64 `json:"seconds"`
}

// metOne is what a request met that failed.
type metOne struct {
	At    float64  `json:"at_ms"` // when it was due, since the start of load
	URL   string   `json:"url"`
	Total float64  `json:"ms"`
	Error *failure `json:"error"`
}

// measurement has what requests met. It may be used by many goroutines.
type measurement struct {
	mutex     sync.Mutex
	summary   summary
	latencies []time.Duration
	succeeded time.Duration // when a request did last, since the start of load
}

func newMeasurement() *measurement {
	return &measurement{summary: summary{Event: "summary", Errors: map[string]int{}, Failures: []metOne{}}}
}

// fail counts a failure. The caller has locked the mutex.
func (m *measurement) fail(err error, due, took time.Duration, url string) {
	m.summary.Failed++
	m.summary.Errors[kindOf(err)]++
	if len(m.summary.Failures) < keptFailures {
		m.summary.Failures = append(m.summary.Failures, metOne{milliseconds(due), url, milliseconds(took), failureOf(err)})
	}
}

// print prints the summary, and reports whether no request failed.
func (m *measurement) print(out *printer) (bool, error) {
	slices.Sort(m.latencies)
	for percent, field := range map[int]*float64{50: &m.summary.P50, 99: &m.summary.P99, 100: &m.summary.Longest} {
		*field = percentile(m.latencies, percent)
	}
	out.print(m.summary)
	return m.summary.Failed == 0, nil
}

// agentRequest is one of the requests that take turns. With anyLabel in its host, each is for a name of its own.
type agentRequest struct {
	url  string
	sent request
	to   destination
	idle chan *connection // those that can be used again; nil without
}

const mostIdle = 1000

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

// progress is printed once a second.
type progress struct {
	Event string `json:"event"`
	Done  int    `json:"done"` // since the start
}

func declareLoad(flags *flag.FlagSet) action {
	rate := flags.Float64("rate", 200, "requests per second; each leaves a port in TIME_WAIT for 60 s")
	seconds := flags.Float64("seconds", 10, "how long to begin requests; 0 is until SIGTERM")
	timeout := flags.Duration("timeout", 5*time.Second, "limit for each request, from lookup to end of body")
	kept := flags.Bool("kept", false, "use connections again")

	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		var requests []agentRequest
		for _, location := range arguments {
			location = strings.Replace(location, "//*.", "//"+anyLabel+".", 1)
			sent, to, err := requestFor(location)
			if err != nil {
				return false, err
			}
			requests = append(requests, agentRequest{url: location, sent: sent, to: to})
			if *kept {
				requests[len(requests)-1].idle = make(chan *connection, mostIdle)
			}
		}
		return load(ctx, requests, *rate, *seconds, *timeout, out).print(out)
	}
}

// load begins requests until the time is over or ctx is done, and waits for those that are under way.
func load(
	ctx context.Context, requests []agentRequest, rate, seconds float64, timeout time.Duration, out *printer,
) *measurement {
	met := newMeasurement()
	start := time.Now()
	reporting, stopReports := context.WithCancel(context.Background())
	var reports, underWay sync.WaitGroup
	reports.Go(func() { met.report(reporting, out) })

	// The signal ends the beginning of requests, not the requests.
	requestContext := context.WithoutCancel(ctx)
	total := int(math.Ceil(rate*seconds - 1e-9))
	for i := 0; seconds == 0 || i < total; i++ {
		due := time.Duration(float64(i) / rate * float64(time.Second))
		if !sleep(ctx, due-time.Since(start)) {
			break
		}
		met.mutex.Lock()
		met.summary.Sent++
		met.mutex.Unlock()
		underWay.Go(func() {
			met.attempt(requestContext, requests[i%len(requests)].once(), start, due, timeout)
		})
	}
	end := time.Since(start)
	underWay.Wait()
	stopReports()
	reports.Wait()
	met.summary.Dead = max(met.summary.Dead, milliseconds(end-met.succeeded))
	return met
}

// attempt makes one request. The connection is closed after the result is in: goodbyes are no latency.
func (m *measurement) attempt(ctx context.Context, request agentRequest, start time.Time, due, timeout time.Duration) {
	lag := time.Since(start) - due
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	took, finish, err := request.fetch(ctx)
	defer finish()
	finished := time.Since(start)
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.latencies = append(m.latencies, finished-due)
	m.summary.LongestDNS = max(m.summary.LongestDNS, milliseconds(took.dns))
	m.summary.LongestTCP = max(m.summary.LongestTCP, milliseconds(took.connect))
	m.summary.LongestLag = max(m.summary.LongestLag, milliseconds(lag))
	if err != nil {
		m.fail(err, due, finished-due, request.url)
		return
	}
	m.summary.Dead = max(m.summary.Dead, milliseconds(finished-m.succeeded))
	m.succeeded = max(m.succeeded, finished)
}

// fetch makes a request, on a connection that is idle if there is one. The caller runs finish once it has taken the time.
func (r agentRequest) fetch(ctx context.Context) (took timing, finish func(), err error) {
	if r.idle == nil {
		_, took, finish, err = fetchOnce(ctx, r.to, r.sent, io.Discard)
		return took, finish, err
	}
	conn := r.idleConnection()
	if conn == nil {
		if conn, took, err = open(ctx, r.to); err != nil {
			return took, func() {}, err
		}
	}
	response, err := conn.fetch(ctx, r.sent, io.Discard)
	if !complete(err) || response.Close {
		return took, conn.abandon, err
	}
	return took, func() { r.idle <- conn }, err
}

// idleConnection returns a connection that the server has not closed, or nil.
func (r agentRequest) idleConnection() *connection {
	for {
		select {
		case conn := <-r.idle:
			if conn.open() {
				return conn
			}
			conn.abandon()
		default:
			return nil
		}
	}
}

// report prints the progress once a second.
func (m *measurement) report(ctx context.Context, out *printer) {
	for sleep(ctx, time.Second) {
		m.mutex.Lock()
		out.print(progress{"progress", len(m.latencies)})
		m.mutex.Unlock()
	}
}

// driver is what clients in closed loops do, and what became of it.
type driver struct {
	*measurement
	agentRequest
	kept     bool
	interval time.Duration
	timeout  time.Duration
	out      *printer
}

func declareDrive(flags *flag.FlagSet) action {
	driver := &driver{measurement: newMeasurement()}
	clients := flags.Int("clients", 1, "how many make requests at the same time")
	seconds := flags.Float64("seconds", 3, "for how long to begin requests; 0 is until SIGTERM")
	flags.BoolVar(&driver.kept, "kept", false, "make the requests of a client on one connection, and tell of each connection")
	flags.DurationVar(&driver.interval, "interval", 0, "time between the beginnings of two requests of a client, or more")
	flags.DurationVar(&driver.timeout, "timeout", 5*time.Second, "limit for each request")
	trusted := flags.String("trust", "", "have the host prove its name by these authorities, as `PEM`")
	connect := flags.String("connect", "", "dial this `ADDRESS[:PORT]`; Host and SNI stay those of the URL")
	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		var err error
		if driver.sent, driver.to, err = requestFor(arguments[0]); err == nil {
			err = driver.to.trust(*trusted)
		}
		if err != nil {
			return false, err
		}
		driver.to.dialTo(*connect)
		driver.url, driver.out = arguments[0], out
		driver.run(ctx, *clients, *seconds)
		return driver.print(out)
	}
}

// run has clients make requests until the time is over or ctx is done.
func (d *driver) run(ctx context.Context, clients int, seconds float64) {
	if seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
		defer cancel()
	}
	var running sync.WaitGroup
	begin := time.Now()
	for range clients {
		running.Go(func() { d.repeat(ctx) })
	}
	running.Wait()
	d.summary.Seconds = time.Since(begin).Seconds()
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

// once makes a request, on a new connection if there is none, and returns the connection if it is for the next one.
func (d *driver) once(ctx context.Context, conn *connection) *connection {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	var octets counter
	var response *http.Response
	var err error
	begin, opened := time.Now(), 0
	if conn == nil {
		if conn, _, err = open(ctx, d.to); err == nil {
			opened = 1
		}
	}
	if err == nil {
		response, err = conn.fetch(ctx, d.sent, &octets)
	}
	took := time.Since(begin)
	if opened > 0 && d.kept {
		d.out.print(event{"connected"})
	}
	closes := complete(err) && response.Close
	if conn != nil && (closes || !complete(err) || !d.kept) {
		conn.abandon() // with a farewell, a client would wait for the other end
		conn = nil
	}

	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.summary.Sent++
	d.summary.Connections += opened
	d.summary.Bytes += int64(octets)
	if closes {
		d.summary.PoliteCloses++
	}
	if err != nil {
		d.fail(err, 0, took, d.url)
	} else {
		d.latencies = append(d.latencies, took)
	}
	return conn
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(data []byte) (int, error) {
	*c += counter(len(data))
	return len(data), nil
}
