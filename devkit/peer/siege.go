// The verb siege: one client that takes as many connections as it can get, and wants each one back that it loses.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

const (
	// anyLabel stands in what is sent, and in names, until a random label of this length takes its place.
	anyLabel = "any-label-00"

	dialWithin = 5 * time.Second
)

type siegeResult struct {
	Attempts int            `json:"attempts"`
	Opened   int            `json:"opened"`
	Peak     int            `json:"peak"`   // most at the same time
	Ended    int            `json:"ended"`  // of the opened ones, those that the other side ended
	Errors   map[string]int `json:"errors"` // of the attempts that failed, by kind
}

// siege is a plan for connections. In each of its places there is at most one at a time.
type siege struct {
	address             string
	places              int
	rise, pause, drip   time.Duration
	unread, half, brief bool
	first               int64
	labels              int
	tls                 string
	sent                []byte // with anyLabel where each connection has a label of its own

	mutex  sync.Mutex
	open   int
	result siegeResult
}

func declareSiege(flags *flag.FlagSet) action {
	siege := &siege{result: siegeResult{Errors: map[string]int{}}}
	seconds := flags.Float64("seconds", 1, "for how long")
	octets := flags.String("hex", "", "send these bytes, in `HEXADECIMAL`; each connection replaces "+anyLabel+" in them")
	padding := flags.Int("padding", 0, "then send this many `OCTETS` x")
	flags.IntVar(&siege.places, "count", 1, "how many connections at the same time")
	flags.DurationVar(&siege.rise, "rise", 0, "begin the first connections evenly within this time, not all at once")
	flags.DurationVar(&siege.pause, "pause", 0, "wait for this long before a refused or ended connection is opened again")
	flags.StringVar(&siege.tls, "tls", "", "agree on TLS first, with this server `NAME`, whatever the certificate")
	flags.DurationVar(&siege.drip, "drip", 0, "after that, send one octet in each interval")
	flags.BoolVar(&siege.unread, "unread", false, "receive nothing")
	flags.Int64Var(&siege.first, "first", 0, "with that, receive this many `OCTETS` before")
	flags.IntVar(&siege.labels, "labels", 0, "take labels from `label-000000` on, so many of them, and not random ones")
	flags.BoolVar(&siege.half, "half", false, "then end each connection in this direction")
	flags.BoolVar(&siege.brief, "brief", false, "end a connection as soon as something was received")
	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		sent, err := hex.DecodeString(*octets)
		if err != nil {
			return false, err
		}
		siege.address, siege.sent = arguments[0], append(sent, strings.Repeat("x", *padding)...)
		ctx, cancel := context.WithTimeout(ctx, time.Duration(*seconds*float64(time.Second)))
		defer cancel()
		result := siege.run(ctx)
		out.print(result)
		return result.Opened > 0, nil
	}
}

func (s *siege) run(ctx context.Context) siegeResult {
	var all sync.WaitGroup
	for place := range s.places {
		first := time.Duration(float64(s.rise) * float64(place) / float64(s.places))
		all.Go(func() {
			for wait := first; sleep(ctx, wait); wait = s.pause {
				s.take(ctx)
			}
		})
	}
	all.Wait()
	return s.result
}

func sleep(ctx context.Context, duration time.Duration) bool {
	if duration > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(duration):
		}
	}
	return !over(ctx)
}

// over reports whether the time has passed. On a busy machine, ctx is done later than that.
func over(ctx context.Context) bool {
	deadline, limited := ctx.Deadline()
	return ctx.Err() != nil || limited && !time.Now().Before(deadline)
}

// take opens one connection and keeps it until either side's end. It is then reset: an orderly end would keep its port
// for a minute.
func (s *siege) take(ctx context.Context) {
	dialer := net.Dialer{Timeout: dialWithin}
	conn, err := dialer.DialContext(ctx, "tcp4", s.address)
	if err == nil {
		defer conn.Close()
		_ = conn.(*net.TCPConn).SetLinger(0)
		stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
		defer stop()
	}
	if over(ctx) {
		return
	}
	s.opened(err)
	if err != nil {
		return
	}
	err = s.keep(ctx, conn)
	s.ended(err != nil && !over(ctx))
}

func (s *siege) opened(err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.result.Attempts++
	if err != nil {
		s.result.Errors[kindOf(err)]++
		return
	}
	s.result.Opened++
	s.open++
	s.result.Peak = max(s.result.Peak, s.open)
}

func (s *siege) ended(byOther bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.open--
	if byOther {
		s.result.Ended++
	}
}

func (s *siege) keep(ctx context.Context, conn net.Conn) error {
	if s.tls != "" {
		agreed := tls.Client(conn, &tls.Config{ServerName: s.tls, InsecureSkipVerify: true})
		if err := agreed.HandshakeContext(ctx); err != nil {
			return err
		}
		conn = agreed
	}
	if _, err := conn.Write(s.message()); err != nil {
		return err
	}
	if s.half {
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			return err
		}
	}
	if s.drip > 0 {
		go func() {
			for sleep(ctx, s.drip) {
				if _, err := conn.Write([]byte("x")); err != nil {
					return
				}
			}
		}()
	}
	if s.unread {
		_, err := io.CopyN(io.Discard, conn, s.first)
		if err == nil {
			<-ctx.Done()
		}
		return err
	}
	for buffer := make([]byte, 512); ; { // io.Copy takes 8 KiB for each of thousands
		if _, err := conn.Read(buffer); err != nil || s.brief {
			return err
		}
	}
}

func (s *siege) message() []byte {
	if !bytes.Contains(s.sent, []byte(anyLabel)) {
		return s.sent
	}
	label := randomLabel()
	if s.labels > 0 {
		label = fmt.Sprintf("label-%06d", rand.IntN(s.labels))
	}
	return bytes.Replace(s.sent, []byte(anyLabel), []byte(label), 1)
}

func randomLabel() string {
	label := make([]byte, len(anyLabel))
	for i := range label {
		label[i] = byte('a' + rand.IntN(26))
	}
	return string(label)
}

const lastAnswer = 500 * time.Millisecond

type inundateResult struct {
	Sent    int `json:"sent"`
	Answers int `json:"answers"`
}

func declareInundate(flags *flag.FlagSet) action {
	count := flags.Int("count", 1000, "how many queries to send")
	seconds := flags.Float64("seconds", 0, "send for this long instead, however many that are")
	server := flags.String("server", "", serverUsage)
	pause := flags.Duration("pause", 0, "the time from one query to the next; one that is late is sent at once")
	return func(_ context.Context, arguments []string, out *printer) (bool, error) {
		address, err := serverOrFirst(*server)
		if err != nil {
			return false, err
		}
		query, err := new(dns.Msg).SetQuestion(dns.Fqdn(arguments[0]), dns.TypeA).Pack()
		if err != nil {
			return false, err
		}
		began := time.Now()
		end := began.Add(time.Duration(*seconds * float64(time.Second)))
		result, err := inundate(address, query, func(sent int) bool {
			time.Sleep(time.Until(began.Add(time.Duration(sent) * *pause)))
			if *seconds > 0 {
				return time.Now().Before(end)
			}
			return sent < *count
		})
		out.print(result)
		return result.Answers == result.Sent, err
	}
}

// inundate sends queries from one socket, as long as there are more, while it reads the answers until none comes any
// longer.
func inundate(address string, query []byte, more func(sent int) bool) (result inundateResult, err error) {
	conn, err := net.Dial("udp4", address)
	if err != nil {
		return result, err
	}
	defer conn.Close()
	var sending atomic.Bool
	sending.Store(true)
	var reading sync.WaitGroup
	reading.Go(func() {
		for buffer := make([]byte, dns.MaxMsgSize); ; {
			last := !sending.Load()
			_ = conn.SetReadDeadline(time.Now().Add(lastAnswer))
			if _, err := conn.Read(buffer); err == nil {
				result.Answers++
			} else if last {
				return
			}
		}
	})
	for tried := 0; more(tried); tried++ {
		if _, err := conn.Write(query); err == nil {
			result.Sent++
		}
	}
	sending.Store(false)
	reading.Wait()
	return result, nil
}

type exhausted struct {
	Taken int  `json:"taken"` // inotify instances, or watches of epoll
	Files bool `json:"files"` // whether other files can still be opened: it is not their limit
}

func declareExhaust(flags *flag.FlagSet) action {
	pause := flags.Duration("for", 0, "how long to keep them; until SIGTERM if 0")
	epoll := flags.Bool("epoll", false, "take watches of epoll, and not inotify instances")
	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		user, err := strconv.Atoi(arguments[0])
		if err != nil {
			return false, err
		}
		// Go takes a watch for itself with the first timer: as another user, there may be none left.
		if *pause > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, *pause)
			defer cancel()
		}
		if err := syscall.Setresuid(user, user, user); err != nil {
			return false, err
		}
		take := takeInotify
		if *epoll {
			take = takeWatches
		}
		found := exhausted{Taken: take(ctx)}
		other, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if found.Files = err == nil; found.Files {
			syscall.Close(other)
		}
		out.print(found)
		<-ctx.Done()
		return true, nil
	}
}

func takeInotify(context.Context) (taken int) {
	for {
		if _, err := syscall.InotifyInit1(syscall.IN_CLOEXEC); err != nil {
			return taken
		}
		taken++
	}
}

// watchesOfAnInstance are taken with one file of epoll: so few files are enough for all that a user may have.
const watchesOfAnInstance = 4096

// takeWatches takes watches of epoll until there are no more: each instance watches the same files.
func takeWatches(ctx context.Context) (taken int) {
	files := make([]int, watchesOfAnInstance)
	for index := range files {
		var pair [2]int
		if err := syscall.Pipe2(pair[:], syscall.O_CLOEXEC); err != nil {
			return 0
		}
		files[index] = pair[0]
	}
	for {
		instance, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
		if err != nil {
			return taken
		}
		for _, file := range files {
			event := syscall.EpollEvent{Events: syscall.EPOLLIN}
			if syscall.EpollCtl(instance, syscall.EPOLL_CTL_ADD, file, &event) != nil || ctx.Err() != nil {
				return taken
			}
			taken++
		}
	}
}

// arpTable lists the neighbours of the network namespace that a program runs in (proc_pid_net(5), `/proc/net/arp`).
const arpTable = "/proc/net/arp"

type sweepResult struct {
	// Sent counts datagrams that the kernel took, and Failed those that it refused, as when its table is full.
	Sent   int `json:"sent"`
	Failed int `json:"failed"`
	// Neighbours is the largest number of entries seen in the kernel's table after a round.
	Neighbours int `json:"neighbours"`
}

func declareSweep(flags *flag.FlagSet) action {
	seconds := flags.Float64("seconds", 1, "go on for this long, at least for one round")
	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		network, err := netip.ParsePrefix(arguments[0])
		if err != nil {
			return false, err
		}
		ctx, stop := context.WithTimeout(ctx, time.Duration(*seconds*float64(time.Second)))
		defer stop()
		result, err := sweep(ctx, network.Masked())
		out.print(result)
		return true, err
	}
}

// sweep sends until the context ends. Each datagram has a socket of its own: what waits for a neighbour counts
// towards what its socket may have queued.
func sweep(ctx context.Context, network netip.Prefix) (sweepResult, error) {
	var result sweepResult
	for {
		for address := network.Addr().Next(); network.Contains(address); address = address.Next() {
			if err := sendOnce(address); err != nil {
				result.Failed++
			} else {
				result.Sent++
			}
		}
		table, err := os.ReadFile(arpTable)
		if err != nil {
			return result, err
		}
		result.Neighbours = max(result.Neighbours, bytes.Count(table, []byte("\n"))-1) // the first line is a heading
		if !sleep(ctx, 100*time.Millisecond) {
			return result, nil
		}
	}
}

func sendOnce(address netip.Addr) error {
	conn, err := net.Dial("udp4", netip.AddrPortFrom(address, 9).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte{0})
	return err
}
