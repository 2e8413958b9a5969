// Readers of lines in Go whose true rate is known by arithmetic: 1 / COST_US lines a second.
//
//	lines KIND HOST PORT COST_US
//
//	plain           reads a line, works on it, reads the next one
//	plain-busy      the same, but its work is computing, not sleeping
//	channel         a goroutine works on lines from a channel that holds 16
//
// These hoard: they take all that comes into memory of their own, and work it off from there.
//
//	goroutines      a goroutine for each line, which wait for each other
//	queue           a goroutine works on lines from a slice that grows
//	queue-busy      the same, but its work is computing, not sleeping
//
// The cost of a line is kept by the clock: what was slept too long is made up for, up to 20 ms. At
// the end of the stream it ends once all is worked off, and says of how many lines.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	credit = 20 * time.Millisecond
	lump   = time.Millisecond // it sleeps once it is this far ahead
)

var (
	cost    time.Duration
	busy    bool
	due     time.Time
	done    int
	pending sync.WaitGroup // one for each line that was read and is not worked off
)

// Called by one goroutine at a time.
func work() {
	now := time.Now()
	if earliest := now.Add(-credit); due.Before(earliest) {
		due = earliest
	}
	due = due.Add(cost)
	if busy {
		for time.Now().Before(due) {
		}
	} else if ahead := due.Sub(now); ahead > lump {
		time.Sleep(ahead)
	}
	done++
	pending.Done()
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "lines:", err)
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) != 5 {
		check(errors.New("usage: lines KIND HOST PORT COST_US"))
	}
	kind, host, port := os.Args[1], os.Args[2], os.Args[3]
	costUs, err := strconv.Atoi(os.Args[4])
	check(err)
	cost = time.Duration(costUs) * time.Microsecond
	busy = strings.HasSuffix(kind, "-busy")
	conn, err := net.Dial("tcp", net.JoinHostPort(host, port))
	check(err)
	reader := bufio.NewReader(conn)
	eachLine := func(use func(line string)) {
		for {
			line, err := reader.ReadString('\n')
			if err == io.EOF {
				return
			}
			check(err)
			pending.Add(1)
			use(line)
		}
	}

	switch strings.TrimSuffix(kind, "-busy") {
	case "plain":
		eachLine(func(string) { work() })
	case "channel":
		lines := make(chan string, 16)
		go func() {
			for range lines {
				work()
			}
		}()
		eachLine(func(line string) { lines <- line })
	case "goroutines":
		var turn sync.Mutex
		eachLine(func(string) {
			go func() {
				turn.Lock()
				work()
				turn.Unlock()
			}()
		})
	case "queue":
		var mutex sync.Mutex
		var queue []string
		filled := sync.NewCond(&mutex)
		go func() {
			for {
				mutex.Lock()
				for len(queue) == 0 {
					filled.Wait()
				}
				queue = queue[1:]
				mutex.Unlock()
				work()
			}
		}()
		eachLine(func(line string) {
			mutex.Lock()
			queue = append(queue, line)
			mutex.Unlock()
			filled.Signal()
		})
	default:
		check(errors.New("no such kind: " + kind))
	}
	pending.Wait()
	fmt.Fprintf(os.Stderr, "worked off %d lines\n", done)
}
