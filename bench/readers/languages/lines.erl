%% Readers of lines in Erlang whose true rate is known by arithmetic: 1 / COST_US lines a second.
%%
%%   erl -noinput -run lines main KIND HOST PORT COST_US
%%
%%   plain         receives a line, works on it, receives the next one
%%   plain-busy    the same, but its work is computing, not sleeping
%%   once          {active, once}: asks for the next line when it has worked on this one
%%
%% These hoard: they take all that comes into memory of their own, and work it off from there.
%%
%%   mailbox       {active, true}: all lines go into its mailbox
%%   mailbox-busy  the same, but its work is computing, not sleeping
%%   relay         receives a line and sends it to another process, which works on it
%%
%% The cost of a line is kept by the clock: what was slept too long is made up for, up to 20 ms. At
%% the end of the stream it ends once all is worked off, and says of how many lines.
-module(lines).
-export([main/1]).

-define(CREDIT, 20000000). % ns
-define(LUMP, 1000000). % ns: it sleeps once it is this far ahead

-record(work, {cost, busy, due = now_ns(), done = 0}).

main([Kind, Host, Port, Cost]) ->
    Busy = lists:suffix("-busy", Kind),
    Name = if Busy -> lists:sublist(Kind, length(Kind) - 5); true -> Kind end,
    Work = #work{cost = list_to_integer(Cost) * 1000, busy = Busy},
    case gen_tcp:connect(Host, list_to_integer(Port), [binary, {packet, line}, {active, false}]) of
        {ok, Socket} ->
            #work{done = Done} = read(Name, Socket, Work),
            io:format(standard_error, "worked off ~b lines~n", [Done]),
            halt(0);
        {error, Why} ->
            fail(Why)
    end.

fail(Why) ->
    io:format(standard_error, "lines: ~p~n", [Why]),
    halt(1).

read("plain", Socket, Work) ->
    each_line(Socket, fun(_, SoFar) -> work(SoFar) end, Work);
read("once", Socket, Work) ->
    once(Socket, Work);
read("mailbox", Socket, Work) ->
    inet:setopts(Socket, [{active, true}]),
    mailbox(Socket, Work);
read("relay", Socket, Work) ->
    Self = self(),
    Worker = spawn_link(fun() -> Self ! mailbox(Socket, Work) end),
    each_line(Socket, fun(Line, _) -> Worker ! {tcp, Socket, Line} end, none),
    Worker ! {tcp_closed, Socket},
    receive Done -> Done end;
read(Kind, _, _) ->
    fail({no_such_kind, Kind}).

each_line(Socket, Use, State) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Line} -> each_line(Socket, Use, Use(Line, State));
        {error, closed} -> State;
        {error, Why} -> fail(Why)
    end.

once(Socket, Work) ->
    inet:setopts(Socket, [{active, once}]),
    receive
        {tcp, Socket, _Line} -> once(Socket, work(Work));
        {tcp_closed, Socket} -> Work;
        {tcp_error, Socket, Why} -> fail(Why)
    end.

mailbox(Socket, Work) ->
    receive
        {tcp, Socket, _Line} -> mailbox(Socket, work(Work));
        {tcp_closed, Socket} -> Work;
        {tcp_error, Socket, Why} -> fail(Why)
    end.

work(Work = #work{cost = Cost, busy = Busy, due = Due, done = Done}) ->
    Now = now_ns(),
    Next = max(Due, Now - ?CREDIT) + Cost,
    if
        Busy -> compute_until(Next);
        Next - Now > ?LUMP -> timer:sleep((Next - Now) div 1000000);
        true -> ok
    end,
    Work#work{due = Next, done = Done + 1}.

compute_until(End) ->
    case now_ns() < End of
        true -> compute_until(End);
        false -> ok
    end.

now_ns() -> erlang:monotonic_time(nanosecond).
