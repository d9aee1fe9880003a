// The verb exhaust: as another user, take all that the kernel gives a user of something.
package main

import (
	"context"
	"errors"
	"flag"
	"strconv"
	"syscall"
	"time"
)

// exhausted is printed when there is no more.
type exhausted struct {
	Event string `json:"event"`
	User  int    `json:"user"`
	Taken int    `json:"taken"` // inotify instances, or watches of epoll
	Error string `json:"error"` // of the next one
	Files bool   `json:"files"` // whether other files can still be opened: it is not their limit

	Seconds float64 `json:"seconds"` // that it took
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
		found, began := exhausted{Event: "exhausted", User: user}, time.Now()
		found.Taken, err = take(ctx)
		if err != nil {
			found.Error = err.Error()
		}
		found.Seconds = time.Since(began).Seconds()
		other, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if found.Files = err == nil; found.Files {
			syscall.Close(other)
		}
		out.print(found)
		<-ctx.Done()
		return true, nil
	}
}

// takeInotify takes inotify instances until there are no more. They are kept until the program ends.
func takeInotify(context.Context) (int, error) {
	for taken := 0; ; taken++ {
		if _, err := syscall.InotifyInit1(syscall.IN_CLOEXEC); err != nil {
			return taken, err
		}
	}
}

// watchesOfAnInstance are taken with one file of epoll: so few files are enough for all that a user may have.
const watchesOfAnInstance = 4096

// takeWatches takes watches of epoll until there are no more: each instance watches the same files.
func takeWatches(ctx context.Context) (int, error) {
	files := make([]int, watchesOfAnInstance)
	for index := range files {
		var pair [2]int
		if err := syscall.Pipe2(pair[:], syscall.O_CLOEXEC); err != nil {
			return 0, err
		}
		files[index] = pair[0]
	}
	for taken := 0; ; {
		instance, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
		if err != nil {
			return taken, err
		}
		for _, file := range files {
			event := syscall.EpollEvent{Events: syscall.EPOLLIN}
			if err := errors.Join(syscall.EpollCtl(instance, syscall.EPOLL_CTL_ADD, file, &event), ctx.Err()); err != nil {
				return taken, err
			}
			taken++
		}
	}
}
