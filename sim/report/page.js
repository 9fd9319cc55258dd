// Draws the plots of a report. Runs in the reader's browser, after uPlot; `comparison` is in a JSON script element.
(() => {
  const data = JSON.parse(document.getElementById('comparison').textContent);
  const colours = {
    shoal: '#1f6feb',
    neighbours: '#8250df',
    plain: '#cf222e',
    'whole-layer': '#bf8700',
    scheduler: '#1a7f37',
    bound: '#8c959f',
  };
  const extra = ['#0969da', '#a475f9', '#fa4549', '#d4a72c', '#2da44e', '#57606a', '#e16f24', '#bc4c9b'];
  const colourOf = (name, at) => colours[name] ?? extra[at % extra.length];
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue('--ink').trim();
  const grid = { stroke: style.getPropertyValue('--grid').trim(), width: 1 };
  const axis = (label, values) => ({
    label,
    stroke: ink,
    grid,
    ticks: grid,
    labelSize: 22,
    size: 64,
    ...(values && { values }),
  });

  const MIB = 1024 * 1024;
  const seconds = (ms) => ms / 1000;
  const width = () => Math.min(1040, document.querySelector('main').clientWidth - 48);

  function plot(id, options, columns) {
    const element = document.getElementById(id);
    if (element === null) return;
    const all = {
      width: width(),
      height: 320,
      legend: { live: true },
      cursor: { drag: { x: true, y: false } },
      ...options,
    };
    const chart = new uPlot(all, columns, element);
    addEventListener('resize', () => chart.setSize({ width: width(), height: all.height }));
  }

  /** Columns over one x axis from curves that have an x axis each. */
  function joined(curves) {
    return uPlot.join(curves.map(({ x, y }) => [x, y]));
  }

  const line = (label, stroke, more = {}) => ({
    label,
    stroke,
    width: 2,
    spanGaps: true,
    points: { show: false },
    ...more,
  });

  function startTimes() {
    const curves = [];
    const series = [{ label: 'seconds' }];
    const cdf = (values) => {
      // uPlot wants ascending distinct x: of equal times the last one says how many there were.
      const x = [];
      const y = [];
      for (const [at, ms] of values.entries()) {
        const part = (100 * (at + 1)) / values.length;
        if (x.length > 0 && x.at(-1) === seconds(ms)) y[y.length - 1] = part;
        else {
          x.push(seconds(ms));
          y.push(part);
        }
      }
      if (x.length > 0) {
        x.unshift(x[0] * 0.999);
        y.unshift(0);
      }
      return { x, y };
    };
    for (const [at, result] of data.results.entries()) {
      curves.push(cdf(result.startCurveMs));
      series.push(line(result.policy, colourOf(result.policy, at)));
    }
    if (data.results.length > 0) {
      curves.push(cdf(data.results[0].boundCurveMs));
      series.push(line('fluid bound', colours.bound, { dash: [6, 4] }));
    }
    const log = { time: false, distr: 3 };
    plot(
      'start-times',
      {
        scales: { x: log, y: { range: [0, 100] } },
        axes: [axis('start time, s (logarithmic)'), axis('% of starts ready')],
        series,
      },
      joined(curves),
    );
  }

  function overTime(id, label, pick) {
    const curves = data.results.map(({ samples }) => ({
      x: samples.slice(1).map(({ atMs }, at) => seconds(atMs) + at * 1e-9),
      y: samples.slice(1).map((sample, at) => pick(sample, samples[at])),
    }));
    const series = [{ label: 'seconds' }, ...data.results.map(({ policy }, at) => line(policy, colourOf(policy, at)))];
    plot(id, { scales: { x: { time: false } }, axes: [axis('time, s'), axis(label)], series }, joined(curves));
  }

  const perSecond = (key) => (now, before) => {
    const ms = now.atMs - before.atMs;
    return ms <= 0 ? 0 : ((now[key] - before[key]) / ms) * 1000;
  };

  function bars(id, label, groups, seriesOf) {
    const names = data.results.map(({ policy }) => policy);
    const x = names.map((_, at) => at);
    const paths = (align) => uPlot.paths.bars({ size: [0.7 / groups.length, 80], align });
    const series = groups.map(({ name, colour }, at) => ({
      label: name,
      stroke: colour,
      fill: `${colour}aa`,
      width: 1,
      points: { show: false },
      paths: groups.length === 1 ? paths(0) : offsetBars(at, groups.length),
    }));
    plot(
      id,
      {
        cursor: { show: false },
        scales: {
          x: { time: false, range: [-0.6, names.length - 0.4] },
          y: { range: (_, __, max) => [0, max * 1.08 || 1] },
        },
        axes: [
          { ...axis('', (_, splits) => splits.map((at) => names[at] ?? '')), splits: () => x, grid: { show: false } },
          axis(label),
        ],
        series: [{ label: 'policy' }, ...series],
      },
      [x, ...groups.map((group) => data.results.map((result) => seriesOf(result, group)))],
    );
  }

  /** Groups of bars side by side around each x. */
  function offsetBars(at, count) {
    const builder = uPlot.paths.bars({
      size: [1, 60],
      disp: {
        x0: { unit: 1, values: (u) => u.data[0].map((x) => x - 0.35 + (0.7 * at) / count) },
        size: { unit: 1, values: (u) => u.data[0].map(() => 0.62 / count) },
      },
    });
    return builder;
  }

  function bytesBySource() {
    const groups = [
      { name: 'registry', colour: '#cf222e', key: 'registry' },
      { name: 'seed peers', colour: '#bf8700', key: 'seed' },
      { name: 'neighbours', colour: '#1f6feb', key: 'neighbour' },
    ];
    bars('bytes-by-source', 'GiB', groups, ({ bytes }, { key }) => bytes[key] / MIB / 1024);
  }

  function zoneUse() {
    const zones = data.results[0]?.zones.filter(({ down }) => down !== undefined) ?? [];
    if (zones.length === 0) {
      document.getElementById('zones')?.remove();
      return;
    }
    const groups = zones.map(({ name }, at) => ({
      name: `into ${name}`,
      colour: extra[at % extra.length],
      zone: name,
    }));
    bars(
      'zone-links',
      '% of capacity, whole run',
      groups,
      ({ zones: own }, { zone }) => 100 * (own.find(({ name }) => name === zone)?.down ?? 0),
    );
  }

  function hotSpots() {
    const curves = data.results.map(({ servedCurve }) => ({
      x: servedCurve.map((_, at) => (100 * at) / Math.max(1, servedCurve.length - 1)),
      y: servedCurve.map((bytes) => bytes / MIB),
    }));
    const series = [
      { label: '% of nodes' },
      ...data.results.map(({ policy }, at) => line(policy, colourOf(policy, at))),
    ];
    plot(
      'hot-spots',
      {
        scales: { x: { time: false } },
        axes: [axis('nodes, those that sent most first, %'), axis('MiB sent to others')],
        series,
      },
      joined(curves),
    );
  }

  function messages() {
    const kinds = ['request', 'have', 'find', 'claim', 'settle', 'announce', 'schedule'];
    const groups = kinds.map((name, at) => ({ name, colour: extra[at % extra.length] }));
    bars('messages', 'messages per node', groups, ({ messages: counts }, { name }) => counts[name] / data.nodes);
  }

  function sweep() {
    const { sweep: swept } = data;
    if (swept === undefined) return;
    const isNumeric = swept.values.every((value) => typeof value === 'number');
    const x = isNumeric ? swept.values : swept.values.map((_, at) => at);
    const labels = isNumeric ? undefined : (_, splits) => splits.map((at) => String(swept.values[at] ?? ''));
    const isWide = isNumeric && Math.min(...x) > 0 && Math.max(...x) / Math.min(...x) >= 30;
    const scale = { time: false, ...(isWide && { distr: 3 }) };
    const curves = (pick) =>
      swept.policies.map((policy) =>
        swept.points.map((results) => pick(results.find((each) => each.policy === policy))),
      );
    const series = [
      { label: swept.key },
      ...swept.policies.map((policy, at) => line(policy, colourOf(policy, at), { points: { show: true, size: 7 } })),
    ];
    const order = x.map((_, at) => at).sort((a, b) => x[a] - x[b]);
    const ordered = (columns) => columns.map((column) => order.map((at) => column[at]));
    const draw = (id, label, pick) =>
      plot(
        id,
        { scales: { x: scale }, axes: [axis(swept.key, labels), axis(label)], series },
        ordered([x, ...curves(pick)]),
      );
    draw('sweep-start', 'p99 start time, s', (result) => seconds(result.startMs.p99));
    draw('sweep-egress', 'registry bytes ÷ bytes read', (result) => result.egressRatio);
  }

  startTimes();
  overTime('egress', 'registry egress, MiB/s', (now, before) => perSecond('registryBytes')(now, before) / MIB);
  overTime('control', 'control messages per second', perSecond('messages'));
  bytesBySource();
  zoneUse();
  messages();
  hotSpots();
  sweep();
})();
