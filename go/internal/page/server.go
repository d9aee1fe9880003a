package page

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/statussocket"
)

const (
	// agentHeader is the header in which Envoy says whose request it is. It replaces whatever a client sends
	// (clawker_fw/stack/envoy/routes.py).
	agentHeader = "X-Clawker-Fw-Agent"

	// An agent gets so many pages in a second, pagesAtOnce after it was quiet.
	pagesPerSecond, pagesAtOnce = 5, 20
	// mostReaders bounds the agents whose pages are counted.
	mostReaders = 4096

	// requestTime is how long a request may take to arrive, and how long its answer may take to be read.
	requestTime = 5 * time.Second
)

type server struct {
	store *Store
	other func(netip.Addr, string) (told, error)
	now   func() time.Time

	mutex   sync.Mutex
	readers map[netip.Addr]*rate.Limiter
}

func newServer(store *Store, other func(netip.Addr, string) (told, error)) *server {
	return &server{store: store, other: other, now: time.Now, readers: map[netip.Addr]*rate.Limiter{}}
}

// Serve serves the page, or answers the one that does, on the socket that a recorder was given for it.
func (s *Store) Serve(socket *os.File, settings boot.PageSettings) error {
	listener, err := net.FileListener(socket)
	if err != nil {
		return err
	}
	if settings.Socket == "" {
		return s.Tell(listener, settings.Askers)
	}
	other := func(source netip.Addr, hardware string) (told, error) { return askAt(settings, source, hardware) }
	return overHTTP(newServer(s, other)).Serve(listener)
}

// overHTTP returns what serves pages over HTTP. Each connection is for one request and ends with its answer: the server of Go
// would wait for the rest of a request's body before it answers, and no page has to do with one.
func overHTTP(pages http.Handler) *http.Server {
	found := &http.Server{
		Handler: pages, ReadTimeout: requestTime, WriteTimeout: requestTime, ErrorLog: log.New(os.Stderr, "fwctl: ", 0),
	}
	found.SetKeepAlivesEnabled(false)
	return found
}

// Listen opens the socket for the page. It outlives the recorder, so that requests wait in it while that is started again.
func Listen(settings boot.PageSettings) (*os.File, error) {
	if settings.Socket == "" {
		return statussocket.Handed(net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(settings.Listen)))
	}
	return statussocket.Prepare(settings.Socket, 0o666) // Envoy is whoever it is; agents see no file of the container
}

// ServeHTTP answers one request: GET or HEAD of the page, as text or as JSON.
func (s *server) ServeHTTP(writer http.ResponseWriter, asked *http.Request) {
	headers := writer.Header()
	headers.Set("Cache-Control", "no-store")
	headers.Set("Content-Type", "text/plain; charset=utf-8")
	headers.Set("X-Content-Type-Options", "nosniff")
	source, err := netip.ParseAddr(strings.Join(asked.Header.Values(agentHeader), " ")) // several are no address
	if err != nil {
		refuse(writer, http.StatusInternalServerError, "it is not known whose request this is")
		return
	}
	asJSON := asked.URL.RawQuery == "format=json"
	switch {
	case asked.URL.Path != "/" || !asJSON && asked.URL.RawQuery != "":
		refuse(writer, http.StatusNotFound, "there is only one page: /, and /?format=json")
	case asked.Method != http.MethodGet && asked.Method != http.MethodHead:
		headers.Set("Allow", "GET, HEAD")
		refuse(writer, http.StatusMethodNotAllowed, "this page can only be read")
	case !s.reader(source).AllowN(s.now(), 1):
		headers.Set("Retry-After", "1")
		refuse(writer, http.StatusTooManyRequests, "this page is asked for too often")
	default:
		s.answer(writer, source, asJSON)
	}
}

func refuse(writer http.ResponseWriter, status int, sentence string) {
	writer.WriteHeader(status)
	fmt.Fprintf(writer, "clawker-fw: %s\n", sentence)
}

// reader returns how many more pages an agent gets. All are forgotten when there are too many to remember.
func (s *server) reader(source netip.Addr) *rate.Limiter {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	found := s.readers[source]
	if found == nil {
		if len(s.readers) >= mostReaders {
			clear(s.readers)
		}
		found = rate.NewLimiter(pagesPerSecond, pagesAtOnce)
		s.readers[source] = found
	}
	return found
}

func (s *server) answer(writer http.ResponseWriter, source netip.Addr, asJSON bool) {
	hardware, err := s.store.holders.hardwareOf(source)
	own, resolver := half{by: byProxy, err: err}, half{by: byResolver, err: err}
	if err == nil {
		own.told = s.store.Told(source, hardware)
		resolver.told, resolver.err = s.other(source, hardware)
	}
	made := newDocument(source, resolver, own)
	content := []byte(made.text())
	if asJSON {
		writer.Header().Set("Content-Type", "application/json")
		content = made.json()
	}
	writer.Header().Set("Content-Length", strconv.Itoa(len(content)))
	_, _ = writer.Write(content) // nothing of it is sent to who asks for the headers alone
}

// The page's server asks the other sibling's recorder over TCP, at a port that the packet filter opens for Envoy alone: one
// line with the agent's address and its hardware address, answered with what is known about it, as JSON.

const (
	// patience is how long a question may take, on both sides.
	patience = time.Second
	// mostAnswered is how many questions are answered at once. Further ones wait.
	mostAnswered = 16

	longestQuestion = 64
	// longestTold bounds what an answer may have: more than mostRefusals with the longest texts.
	longestTold = 1 << 18
)

// Tell answers questions about agents from those addresses that may ask, for ever.
func (s *Store) Tell(listener net.Listener, askers []netip.Addr) error {
	statussocket.Serve(listener, mostAnswered, func(connection net.Conn) {
		from, err := netip.ParseAddrPort(connection.RemoteAddr().String())
		if err == nil && slices.Contains(askers, from.Addr().Unmap()) {
			_ = s.answer(connection) // who has asked sees that there is no answer
		}
	})
	return net.ErrClosed
}

func (s *Store) answer(connection net.Conn) error {
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	question, err := bufio.NewReader(io.LimitReader(connection, longestQuestion)).ReadString('\n')
	if err != nil {
		return err
	}
	source, hardware, err := readQuestion(question)
	if err != nil {
		return err
	}
	return json.NewEncoder(connection).Encode(s.Told(source, hardware))
}

func question(source netip.Addr, hardware string) string {
	return source.String() + " " + hardware + "\n"
}

func readQuestion(text string) (netip.Addr, string, error) {
	address, hardware, _ := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
	source, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Addr{}, "", err
	}
	read, err := net.ParseMAC(hardware)
	return source, read.String(), err
}

func askAt(settings boot.PageSettings, source netip.Addr, hardware string) (told, error) {
	dialer := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(settings.Own, 0))}
	connection, err := dialer.Dial("tcp4", settings.Other.String())
	if err != nil {
		return told{}, err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return told{}, err
	}
	if _, err := io.WriteString(connection, question(source, hardware)); err != nil {
		return told{}, err
	}
	var answer told
	if err := json.NewDecoder(io.LimitReader(connection, longestTold)).Decode(&answer); err != nil {
		return told{}, err
	}
	if answer.Since.IsZero() {
		return told{}, errors.New("the answer does not say since when")
	}
	return answer, nil
}
