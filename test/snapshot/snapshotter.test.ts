import { snapshotterSuite } from '../suites/snapshotter-suite.ts';
import { inProcess } from './in-process.ts';

snapshotterSuite('shoal', inProcess());
