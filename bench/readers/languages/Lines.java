/*
 * Readers of lines in Java whose true rate is known by arithmetic: 1 / COST_US lines a second.
 *
 *   java Lines KIND HOST PORT COST_US
 *
 *   plain       reads a line, works on it, reads the next one
 *   plain-busy  the same, but its work is computing, not sleeping
 *   garbage     as plain, and allocates 80 kB for each line, so that garbage is collected often
 *
 * These hoard: they take all that comes into memory of their own, and work it off from there.
 *
 *   queue       a thread works on lines from a LinkedBlockingQueue
 *   queue-busy  the same, but its work is computing, not sleeping
 *   executor    an executor with one thread gets a task for each line
 *
 * The cost of a line is kept by the clock: what was slept too long is made up for, up to 20 ms. At
 * the end of the stream it ends once all is worked off, and says of how many lines.
 */
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.Socket;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;

public class Lines {
    static final long CREDIT = 20_000_000; // ns
    static final long LUMP = 1_000_000; // ns: it sleeps once it is this far ahead

    static long cost; // ns
    static boolean busy;
    static long due = System.nanoTime();
    static long done;
    static volatile Object garbage;

    /** Called by one thread at a time. */
    static void work() {
        long now = System.nanoTime();
        due = Math.max(due, now - CREDIT) + cost;
        if (busy) while (System.nanoTime() < due) continue;
        else if (due - now > LUMP) LockSupport.parkNanos(due - now);
        done++;
    }

    static void read(String kind, BufferedReader lines) throws IOException, InterruptedException {
        switch (kind) {
            case "plain" -> {
                while (lines.readLine() != null) work();
            }
            case "garbage" -> {
                while (lines.readLine() != null) {
                    for (int i = 0; i < 20; i++) garbage = new byte[4096];
                    work();
                }
            }
            case "queue" -> {
                var queue = new LinkedBlockingQueue<String>();
                String end = new String("end");
                var worker = new Thread(() -> {
                    try {
                        while (queue.take() != end) work();
                    } catch (InterruptedException error) {
                        throw new IllegalStateException(error);
                    }
                });
                worker.start();
                for (String line; (line = lines.readLine()) != null; ) queue.add(line);
                queue.add(end);
                worker.join();
            }
            case "executor" -> {
                var executor = Executors.newSingleThreadExecutor();
                while (lines.readLine() != null) executor.execute(Lines::work);
                executor.shutdown();
                executor.awaitTermination(1, TimeUnit.DAYS);
            }
            default -> throw new IOException("no such kind: " + kind);
        }
    }

    public static void main(String[] args) throws InterruptedException {
        cost = Long.parseLong(args[3]) * 1000;
        busy = args[0].endsWith("-busy");
        try (var socket = new Socket(args[1], Integer.parseInt(args[2]))) {
            var lines = new BufferedReader(new InputStreamReader(socket.getInputStream()));
            read(args[0].replace("-busy", ""), lines);
            System.err.println("worked off " + done + " lines");
        } catch (IOException error) {
            System.err.println("lines: " + error.getMessage());
            System.exit(1);
        }
    }
}
