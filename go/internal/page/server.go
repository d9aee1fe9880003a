package page

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
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

// server answers agents.
type server struct {
	store *Store
	other func(netip.Addr, string) (told, error)
	now   func() time.Time

	mutex   sync.Mutex
	readers map[netip.Addr]*rate.Limiter
	silent  time.Time // until when the other sibling is not asked
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
	other := other{settings.Own, settings.Other}
	return overHTTP(newServer(s, other.ask)).Serve(listener)
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
		listener, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(settings.Listen))
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		return listener.File()
	}
	return statussocket.Prepare(settings.Socket, 0o666) // Envoy is whoever it is; agents see no file of the container
}

// ServeHTTP answers one request: GET or HEAD of the page, as text or as JSON.
func (s *server) ServeHTTP(writer http.ResponseWriter, asked *http.Request) {
	headers := writer.Header()
	headers.Set("Cache-Control", "no-store")
	headers.Set("Content-Type", "text/plain; charset=utf-8")
	headers.Set("X-Content-Type-Options", "nosniff")
	said := asked.Header.Values(agentHeader)
	if len(said) != 1 {
		refuse(writer, http.StatusInternalServerError, "it is not known whose request this is")
		return
	}
	source, err := netip.ParseAddr(said[0])
	if err != nil {
		refuse(writer, http.StatusInternalServerError, "it is not known whose request this is")
		return
	}
	asJSON, known := wantsJSON(asked)
	switch {
	case asked.URL.Path != "/" || !known:
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

// wantsJSON reports whether a request is for JSON, and whether it is for anything that there is.
func wantsJSON(asked *http.Request) (wants, known bool) {
	switch asked.URL.RawQuery {
	case "format=json":
		return true, true
	case "format=text":
		return false, true
	case "":
		for _, header := range asked.Header.Values("Accept") {
			for kind := range strings.SplitSeq(header, ",") {
				kind, _, _ = strings.Cut(kind, ";")
				if strings.EqualFold(strings.TrimSpace(kind), "application/json") {
					return true, true
				}
			}
		}
		return false, true
	}
	return false, false
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
	hardware, err := s.store.holders.ask(source)
	own, resolver := half{by: byProxy, err: err}, half{by: byResolver, err: err}
	if err == nil {
		own.told = s.store.Told(source, hardware)
		resolver.told, resolver.err = s.askOther(source, hardware)
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

// errSilent is why the other sibling is not asked again at once: every agent would wait for it.
var errSilent = fmt.Errorf("it did not answer within the last %s", patience)

func (s *server) askOther(source netip.Addr, hardware string) (told, error) {
	s.mutex.Lock()
	silent := s.now().Before(s.silent)
	s.mutex.Unlock()
	if silent {
		return told{}, errSilent
	}
	found, err := s.other(source, hardware)
	if err != nil {
		s.mutex.Lock()
		s.silent = s.now().Add(patience)
		s.mutex.Unlock()
	}
	return found, err
}
